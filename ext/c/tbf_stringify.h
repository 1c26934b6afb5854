/* A read's answer with every value as a JSON string, as ThingsBoard gives it (REST spec 7). */
#ifndef TBF_STRINGIFY_H
#define TBF_STRINGIFY_H

#include "tbf_base.h"

/* text: {"key":[{"ts":1,"value":V},..],..} without spaces outside of V, as our own reader writes
 * it.  A number, boolean, object or array becomes a string that holds its text; strings and null
 * stay.  TBF_ENOSPACE: out is too small; TBF_EMALFORMED: another form.  *written: bytes of out. */
tbf_status tbf_stringify(tbf_span text, uint8_t *out, size_t room, size_t *written);

#endif
