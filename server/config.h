/*
 * cohortd's configuration. Every key with type, unit, range, default and whether a reload takes it:
 * deploy/docs/COORDINATOR.md; a commented example: deploy/examples/cohortd.yaml.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/wire/tls.h"

#include <stddef.h>
#include <stdint.h>

enum { FL_SERVER_PATH_MAX = 512, FL_SERVER_SOCKET_MAX = 108 };

struct fl_server_config {
    struct {
        char address[64];
        uint32_t port; /* 0 = any free one, for tests */
    } listen;
    char state[FL_SERVER_PATH_MAX];
    struct {
        char path[FL_SERVER_SOCKET_MAX];
        char group[64]; /* "" = none */
    } socket;
    struct {
        char ca[FL_SERVER_PATH_MAX], certificate[FL_SERVER_PATH_MAX], key[FL_SERVER_PATH_MAX];
        char crl[FL_SERVER_PATH_MAX]; /* "" = none */
        enum fl_tls_order order;
    } tls;
    struct {
        uint32_t connections, half_open, frame_buffers;
        uint64_t heartbeat_ms;
    } limits;
    struct {
        uint64_t state_bytes; /* 0 = no limit */
        uint32_t keep_models, keep_rounds;
    } retention;
    struct {
        enum fl_log_level level;
        enum fl_log_format format;
    } log;
    struct fl_server_target {
        char data[FL_SERVER_PATH_MAX]; /* what examples of the target there are; "" = none */
        char program[FL_SERVER_PATH_MAX];
        uint64_t time_ms, memory;
    } target;
    struct {
        uint32_t short_, sync, long_; /* 0 = by the number of cores */
    } threads;
};

/* Reads and checks a file; relative paths in it are taken from the file's own folder. Errors
 * FL_R_CONF_*, "file:line:column: key: what". */
/* How many connections there are descriptors for: each may have a spool, and the rest of the
 * coordinator needs some. At most what is asked for; 0 = not even one. `most`: descriptors that
 * this process may have. */
uint32_t fl_server_config_connections(uint32_t asked, uint64_t most);
enum { FL_SERVER_DESCRIPTORS = 192 }; /* beside connections */
int fl_server_config_load(const char *path, struct fl_server_config *ret, struct fl_err *e);

/* A reload: takes from `fresh` what may change while running. `ret_waiting` becomes the list of
 * changed keys that wait for a restart, "" when there are none. */
void fl_server_config_renew(struct fl_server_config *running, const struct fl_server_config *fresh,
                            char *ret_waiting, size_t size);

/* What fl_tls_conf_new wants; points into `c`. */
struct fl_tls_files fl_server_config_tls(const struct fl_server_config *c);

#endif
