/* Lexer of the full JSON dialect of MQTT spec 3.1: what Gson's JsonReader takes in lenient mode,
 * which is what ThingsBoard reads payloads with.  Strict text gives the same tokens as the strict
 * lexer. */
#ifndef TBF_JSON_LENIENT_H
#define TBF_JSON_LENIENT_H

#include "tbf_json_value.h"

/* Skips a byte order mark and the prefix )]}' of servers that guard against script inclusion. */
bool tbf_lenient_start(tbf_lex *x);
/* Next value.  The bracket of an object or array is consumed, its content is not. */
tbf_tok_kind tbf_lenient_value(tbf_lex *x, tbf_tok *t);
/* Next name of an object, with the comma before and the colon after it; STRING, END or ERROR. */
tbf_tok_kind tbf_lenient_name(tbf_lex *x, bool first, tbf_tok *t);
/* Next element of an array, with the comma before it; missing elements are null. */
tbf_tok_kind tbf_lenient_element(tbf_lex *x, bool first, tbf_tok *t);
/* True if only white space is left. */
bool tbf_lenient_at_end(tbf_lex *x);

/* Walks a whole payload with this lexer; the batch may be left half-written on error. */
tbf_status tbf_lenient_document(tbf_json_walk *w);

#endif
