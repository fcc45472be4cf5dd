/* What the coordinator shows, as JSON for people's scripts (fields: deploy/docs/CONTROL.md). Every
 * function returns a new reference, NULL when memory ends. */
#ifndef SERVER_CONTROL_JSON_H
#define SERVER_CONTROL_JSON_H

#include "server/control/control.h"

#include <jansson.h>

const char *fl_control_job_state_name(enum fl_job_state s);

json_t *fl_control_json_status(const struct fl_control_status *s);
/* with_text: the description too. */
json_t *fl_control_json_job(const struct fl_control_job *j, bool with_text);
json_t *fl_control_json_round(const struct fl_control_round *r);
json_t *fl_control_json_member(const struct fl_control_member *m);
json_t *fl_control_json_containing(const struct fl_control_containing *m);
json_t *fl_control_json_bubble(const struct fl_control_bubble *b);
json_t *fl_control_json_replay(const struct fl_control_replay *r);
json_t *fl_control_json_score(const struct fl_control_score *s);
json_t *fl_control_json_agent(const struct fl_control_agent *a);

#endif
