/* A file that the daemon gives: written beside, checked, synced, and only then given its name. */
#include "common/base/hash.h"
#include "common/io/file.h"
#include "server/ctl/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct receiving {
    int fd;
    struct fl_hash hash;
    uint64_t bytes;
    json_t *about;
    int sys_errno;
};

static int on_part(void *arg, const struct fl_ctl_answer *part)
{
    struct receiving *x = arg;

    if (part->kind == FL_CTL_JSON) {
        json_decref(x->about);
        x->about = json_loads(part->text, 0, NULL);
        return 0;
    }
    fl_hash_add(&x->hash, part->data, part->size);
    x->bytes += part->size;
    for (size_t at = 0; at < part->size;) {
        ssize_t n = write(x->fd, part->data + at, part->size - at);
        if (n < 0 && errno != EINTR) {
            x->sys_errno = errno;
            return -FL_R_CANCELLED;
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int receive(struct fl_cli *c, const struct fl_ctl_request *q, int fd,
                   int (*check)(struct fl_cli *c, const struct fl_download *x),
                   struct fl_download *ret)
{
    struct receiving x = {.fd = fd};

    fl_hash_init(&x.hash);
    int status = fl_ctl_ask(c->socket, q, c->timeout_ms, on_part, &x, &c->err);
    ret->about = x.about;
    ret->bytes = x.bytes;
    fl_hash_end(&x.hash, &ret->digest);
    if (status == -FL_R_CANCELLED) {
        return fl_fail_sys(&c->err, fl_file_reason(x.sys_errno), x.sys_errno, "write");
    }
    if (status == 0 && (int64_t)x.bytes != fl_cli_int(x.about, "bytes")) {
        return fl_fail(&c->err, FL_R_STORE_MISMATCH, "the bytes are not as many as announced");
    }
    return status || !check ? status : check(c, ret);
}

int fl_cli_download(struct fl_cli *c, const struct fl_ctl_request *q,
                    int (*check)(struct fl_cli *c, const struct fl_download *x),
                    struct fl_download *ret)
{
    const char *path = fl_cli_option(c, "output", 0);
    char beside[PATH_MAX];

    *ret = (struct fl_download){0};
    if (!path) {
        return fl_fail(&c->err, FL_R_ARG, "-o FILE is needed; - is standard output");
    }
    ret->to_file = strcmp(path, "-") != 0;
    if ((size_t)snprintf(beside, sizeof beside, "%s.part", path) >= sizeof beside) {
        return fl_fail(&c->err, FL_R_ARG, "the path is too long");
    }
    if (!ret->to_file) {
        return receive(c, q, STDOUT_FILENO, check, ret);
    }
    int fd = open(beside, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return fl_fail_sys(&c->err, FL_R_SYS, errno, "%s", beside);
    }
    int status = receive(c, q, fd, check, ret);
    if (status == 0 && (fsync(fd) != 0 || rename(beside, path) != 0)) {
        status = fl_fail_sys(&c->err, fl_file_reason(errno), errno, "%s", path);
    }
    close(fd);
    if (status) {
        unlink(beside);
    }
    return status;
}
