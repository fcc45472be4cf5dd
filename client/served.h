/*
 * The network as it serves a site: received and private parts put together (generated weights and
 * private head among them), its head tuned where the job says so. Written when a job's final model
 * is evaluated, for programs at the site. Nothing that is released ever reads it.
 */
#ifndef CLIENT_SERVED_H
#define CLIENT_SERVED_H

#include "client/core/agent.h"
#include "common/plan/plan.h"

/* STATE/<agent>/models/<job>.safetensors: theta under the description's names, and in the metadata
 * the job's text, round and incarnation. `dir` is STATE/<agent>. Durable. */
int fl_served_save(const char *dir, const struct fl_agent_task *what, const struct fl_plan *plan,
                   const uint8_t *plan_text, const float *theta, struct fl_err *e);

/* Copies it to where the site wants it: as ONNX, as safetensors, or both (NULL = not).
 * -FL_R_STORE_OPEN: no such model here yet. */
int fl_served_export(const char *dir, const char *job, const char *onnx, const char *safetensors,
                     struct fl_err *e);

#endif
