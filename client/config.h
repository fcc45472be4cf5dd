/*
 * The configuration of cohort-agent: one YAML file for a process with one or many agents. What
 * every key means: deploy/docs/AGENT.md; an example: deploy/examples/agent.yaml.
 *
 * `defaults:` is laid under every entry of `agents:`, and an entry with `count: N` stands for N
 * agents: in its texts {n} is the agent's number 1..N, {nn} and {nnn} the same with leading zeros.
 * Relative paths are relative to the folder of the file.
 */
#ifndef CLIENT_CONFIG_H
#define CLIENT_CONFIG_H

#include "client/core/policy.h"
#include "client/data/dataset.h"
#include "common/base/conf.h"
#include "common/base/err.h"
#include "common/base/log.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    FL_CONFIG_PATH_MAX = 512,
    FL_CONFIG_NAME_MAX = 64,
    FL_CONFIG_AGENTS_MAX = 1000,
    FL_CONFIG_MODELS_MAX = 4,
    FL_CONFIG_MODEL_MAX = 1 << 30, /* bytes of one of them */
    FL_CONFIG_PROGRAM_MAX = 8,     /* the program and its arguments */
};

/* `trainer:`, the program for jobs that want one. */
struct fl_config_trainer {
    uint32_t program_count; /* 0 = none: such jobs are declined */
    char program[FL_CONFIG_PROGRAM_MAX][FL_CONFIG_PATH_MAX];
    uint64_t time_ms;
    uint64_t memory, output,
        file;      /* bytes: address space (0 = no limit), stdout and stderr, a file */
    bool examples; /* write the examples into its folder */
};

/* Does an update wait for the site's administrator before it is paid for and leaves? */
enum fl_config_hold { FL_HOLD_NONE, FL_HOLD_APPROVE };

struct fl_config_agent {
    char name[FL_CONFIG_NAME_MAX]; /* of its folder, in logs and reports */
    char certificate[FL_CONFIG_PATH_MAX], key[FL_CONFIG_PATH_MAX];
    struct fl_data_source data;
    struct fl_config_trainer trainer;
    struct fl_policy *policy;        /* jobs, and the budget of each */
    uint16_t window_from, window_to; /* minutes of the local day; equal = always */
    unsigned hold;                   /* enum fl_config_hold */
    uint32_t declared_examples;      /* the public weight of this site; 0 = 1 */
    uint32_t upload_bits; /* of an update's values, where a job lets sites send fewer; 0 = all */
    float width;          /* of nested layers, taken as a job begins; 0 = 1, all units */
    char models[FL_CONFIG_MODELS_MAX][FL_CONFIG_PATH_MAX]; /* files for model.base of jobs */
    uint32_t model_count;
};

struct fl_config {
    char state[FL_CONFIG_PATH_MAX];
    struct {
        char path[FL_CONFIG_PATH_MAX];
        char group[FL_CONFIG_NAME_MAX]; /* that may use it; "" = only the same user and root */
    } socket;
    struct {
        char host[256], name[256]; /* name: what its certificate must say; default host */
        uint32_t port;
        char ca[FL_CONFIG_PATH_MAX], crl[FL_CONFIG_PATH_MAX];
        unsigned order; /* of cipher suites: enum fl_tls_order */
    } coordinator;
    struct {
        unsigned level, format; /* enum fl_log_level, fl_log_format */
    } log;
    uint64_t heartbeat_ms;
    uint32_t threads; /* trainings at a time; 0 = cores */
    uint64_t drain_ms, patience_ms;
    struct {
        uint64_t min_ms, max_ms;
    } backoff;
    struct {
        uint64_t model, cache, data; /* bytes: of one model; of one agent's cache; of loaded data */
    } limits;
    uint32_t agent_count;
    struct fl_config_agent *agents;
    char path[FL_CONFIG_PATH_MAX]; /* of the file */
    struct fl_conf *text;          /* as it was read */
};

/* Errors name file, line, column and key: FL_R_CONF_*. fl_config_free accepts NULL. */
int fl_config_load(const char *path, struct fl_config **ret, struct fl_err *e);
void fl_config_free(struct fl_config *c);

/* "22:00-06:00"; false when it is not one. */
bool fl_config_window(const char *text, uint16_t *ret_from, uint16_t *ret_to);

#endif
