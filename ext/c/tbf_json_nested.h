/* Nested objects and arrays become compact strict JSON text (MQTT spec 3.3). */
#ifndef TBF_JSON_NESTED_H
#define TBF_JSON_NESTED_H

#include "tbf_json_value.h"

/* Skips, checking it, the object or array whose bracket has just been consumed. */
tbf_status tbf_nested_skip(tbf_json_walk *w, tbf_tok_kind kind);

/* Writes the object or array whose bracket has just been consumed as a JSON point: white space and
 * null members dropped, repeated names joined, lenient forms made strict.  Takes any text of the
 * dialect; linear in its length. */
tbf_status tbf_nested_put(tbf_json_walk *w, tbf_span key, tbf_tok_kind kind);

/* The same for a whole strict object or array that stands outside the payload. */
tbf_status tbf_json_put_nested(tbf_json_walk *w, tbf_span key, tbf_span text);

#endif
