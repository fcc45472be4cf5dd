/* The real cohortctl against a small coordinator: what it prints, and its exit codes. */
#include "common/base/mem.h"
#include "tests/lib/asker.h"
#include "tests/lib/check_main.h"
#include "tests/lib/small_coordinator.h"

#include <fcntl.h>
#include <jansson.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

static const char *program;
static char dir[64], path[96];
static char out[64 * 1024], err[4096];
static char completion[16 * 1024];
static bool on_terminal; /* standard output of the next commands */

extern char **environ;

/* Runs a command line (words by spaces) while the loop serves it; returns the exit code. */
static int ctl(struct co *co, const char *line)
{
    char words[512], *argv[40] = {0}, *rest = words;
    int argc = 0, status, fds[2][2];
    pid_t child;
    posix_spawn_file_actions_t actions;
    size_t used[2] = {0};

    argv[argc++] = (char *)(uintptr_t)program;
    snprintf(words, sizeof words, "%s", line);
    for (char *w; (w = strsep(&rest, " ")) != NULL && argc < 39;) {
        argv[argc++] = w;
    }
    posix_spawn_file_actions_init(&actions);
    for (int i = 0; i < 2; i++) {
        if (i == 0 && on_terminal) {
            ck_assert_int_eq(openpty(&fds[i][0], &fds[i][1], NULL, NULL, NULL), 0);
            ck_assert_int_eq(fcntl(fds[i][0], F_SETFL, O_NONBLOCK), 0);
        } else {
            ck_assert_int_eq(pipe2(fds[i], O_CLOEXEC | O_NONBLOCK), 0);
        }
        posix_spawn_file_actions_adddup2(&actions, fds[i][1], i + 1);
    }
    ck_assert_int_eq(posix_spawn(&child, program, &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    char *to[2] = {out, err};
    size_t sizes[2] = {sizeof out - 1, sizeof err - 1};
    bool over = false;
    for (int i = 0; i < 2; i++) {
        close(fds[i][1]);
    }
    do {
        /* Look at its end before its pipes: what it wrote is in them then. */
        RUN_UNTIL(&co->loop, true);
        over = waitpid(child, &status, WNOHANG) == child;
        for (int i = 0; i < 2; i++) {
            ssize_t n;
            while ((n = read(fds[i][0], to[i] + used[i], sizes[i] - used[i])) > 0) {
                used[i] += (size_t)n;
            }
        }
    } while (!over);
    for (int i = 0; i < 2; i++) {
        to[i][used[i]] = 0;
        close(fds[i][0]);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void start(struct co *co)
{
    co_start(co, path);
    char file[128];
    snprintf(file, sizeof file, "%s/job.yaml", dir);
    FILE *f = fopen(file, "w");
    ck_assert_ptr_nonnull(f);
    fputs("name: demo\n", f);
    fclose(f);
}

static int submit(struct co *co)
{
    char line[200];

    snprintf(line, sizeof line, "job submit %s/job.yaml", dir);
    return ctl(co, line);
}

#define SAYS(where, text) ck_assert_msg(strstr(where, text) != NULL, "%s", where)

START_TEST(test_exit_codes)
{
    static const struct {
        const char *line;
        int code;
        const char *says; /* on stderr */
    } cases[] = {
        {"status", 0, ""},
        {"", 2, "no command ''"},
        {"stats", 2, "no command 'stats'"},
        {"status extra", 2, "usage: cohortctl status"},
        {"status --wait", 2, "status does not take --wait"},
        {"status --colour", 2, "no option '--colour'"},
        {"status --timeout", 2, "--timeout takes TIME"},
        {"status --timeout soon", 2, "--timeout: a time"},
        {"status --json --json", 2, "--json given twice"},
        {"status --json=yes", 2, "--json takes nothing"},
        {"--socket /nonexistent/sock status", 3, "No such file or directory"},
        {"job show nothing", 1, "no job 'nothing' (no-such-job, reason 400)"},
        {"job pause ../x", 2, "is not a job's name"},
        {"job set demo quorum", 2, "KEY=VALUE, not 'quorum'"},
        {"job submit /nonexistent.yaml", 78, "No such file"},
        {"agent enrol", 2, "certificates, or --key HEX --name NAME"},
        {"agent enrol /nonexistent.crt", 1, "No such file"},
        {"model export demo", 2, "-o FILE is needed"},
        {"privacy epsilon --sigma 1", 2, "--delta is needed"},
        {"privacy epsilon --sigma 0 --delta 1e-5", 2, "--sigma: a number above 0"},
        {"privacy epsilon --sigma nan --delta 1e-5", 2, "--sigma: a number above 0"},
        {"privacy epsilon --sigma 1 --delta 0", 2, "--delta: a number above 0"},
        {"privacy epsilon --sigma 1 --delta -1e-5", 2, "--delta: a number above 0"},
        {"privacy epsilon --sigma 1 --delta nan", 2, "--delta: a number above 0"},
        {"privacy epsilon --sigma 1 --delta 1e-5 --population 100000", 1, "below 1/100000"},
        {"privacy epsilon --sigma 1 --delta 1e-5 --q 1.5", 2, "--q: a number above 0"},
        {"privacy sigma --epsilon 0 --delta 1e-5", 2, "--epsilon: a number above 0"},
        {"privacy sigma --epsilon -1 --delta 1e-5", 2, "--epsilon: a number above 0"},
        {"privacy rounds --epsilon 0.001 --sigma 1 --delta 1e-5", 1, "not even one release"},
        {"privacy compose --delta 1e-5", 2, "--event is needed"},
        {"privacy compose --delta 1e-5 --event Gauss(", 2, "a number is expected"},
        {"privacy compose --delta 1e-5 --event Gauss(0)", 1, "no finite epsilon"},
        {"privacy compose --delta 1e-5 --event Gauss(1) --relation some", 2, "add-remove, replace"},
        {"privacy table /nonexistent.csv", 1, "No such file"},
        {"privacy plan /nonexistent.yaml", 78, "No such file"},
        {"pki list /nonexistent", 1, "`pki init` makes one"},
    };
    struct co co = {0};

    start(&co);
    for (size_t i = 0; i < FL_COUNT(cases); i++) {
        int code = ctl(&co, cases[i].line);
        ck_assert_msg(code == cases[i].code && strstr(err, cases[i].says), "%s: %d %s",
                      cases[i].line, code, err);
    }
    /* Errors are documents too. */
    ck_assert_int_eq(ctl(&co, "job show nothing --json"), 1);
    SAYS(err, "{\"error\":{\"reason\":400,\"name\":\"no-such-job\"");
    co_stop(&co);
}
END_TEST

START_TEST(test_every_command_has_help_and_completion)
{
    struct co co = {0};
    char line[100];
    size_t i, k;
    json_t *command, *option;

    start(&co);
    ck_assert_int_eq(ctl(&co, "--help"), 0);
    SAYS(out, "exit codes: 0 done");
    ck_assert_int_eq(ctl(&co, "--help --json"), 0);
    json_t *list = json_loads(out, 0, NULL);
    ck_assert_uint_gt(json_array_size(list), 25);
    json_array_foreach(list, i, command)
    {
        const char *words = json_string_value(json_object_get(command, "command"));
        snprintf(line, sizeof line, "%.60s --help", words);
        ck_assert_msg(ctl(&co, line) == 0, "%s: %s", line, err);
        SAYS(out, words);
        /* The completion script knows the command and each of its own options. */
        snprintf(line, sizeof line, "\n        '%.60s')", words);
        const char *row = strstr(completion, line);
        ck_assert_msg(row != NULL, "no completion for %s", words);
        size_t length = strcspn(row + 1, "\n");
        json_array_foreach(json_object_get(command, "options"), k, option)
        {
            snprintf(line, sizeof line, "--%.60s ", json_string_value(option));
            const char *at = strstr(k < 4 ? completion : row, line);
            ck_assert_msg(at && (k < 4 || at < row + length), "no completion for %s %s", words,
                          line);
        }
    }
    json_decref(list);
    co_stop(&co);
}
END_TEST

static double number_in(const char *field)
{
    json_t *o = json_loads(out, 0, NULL);
    double x = json_number_value(json_object_get(o, field));

    json_decref(o);
    return x;
}

/* Figures of the accountants' own tests, through the program. */
START_TEST(test_privacy_at_hand)
{
    struct co co = {0};
    char line[200], file[128];

    start(&co);
    ck_assert_int_eq(ctl(&co, "privacy epsilon --sigma 1 --delta 1e-5 --json"), 0);
    ck_assert_double_eq_tol(number_in("epsilon"), 4.3772, 5e-5);
    SAYS(out, "\"bound\": \"exact-gaussian\"");
    ck_assert_int_eq(ctl(&co, "privacy sigma --epsilon 8 --delta 1e-5 --steps 100 --json"), 0);
    ck_assert_double_eq_tol(number_in("sigma"), 6.0023, 5e-5);
    ck_assert_int_eq(ctl(&co, "privacy rounds --epsilon 8 --delta 1e-5 --sigma 6.01 --json"), 0);
    ck_assert_double_eq(number_in("rounds"), 100);
    /* Heterogeneous: 1000 sampled rounds and one of everybody. */
    ck_assert_int_eq(ctl(&co, "privacy compose --event Poisson(q=0.01;Gauss(sigma=1))x1000 --event "
                              "Gauss(sigma=20) --delta 1e-5 --json"),
                     0);
    ck_assert_double_eq_tol(number_in("epsilon"), 1.8387, 1e-3);
    ck_assert_double_eq_tol(number_in("epsilon_adaptive"), 2.1111, 1e-3);
    ck_assert_int_eq(ctl(&co, "privacy compose --event Gauss(2) --relation replace --delta 1e-5"),
                     0);
    SAYS(out, "4.37718");
    SAYS(out, "one unit replaced");

    snprintf(file, sizeof file, "%s/questions.csv", dir);
    FILE *f = fopen(file, "w");
    ck_assert_ptr_nonnull(f);
    fputs("id,kind,sigma,delta\na,analytic_eps,1,1e-5\nb,analytic_eps,0,1e-5\n", f);
    fclose(f);
    snprintf(line, sizeof line, "privacy table %s", file);
    ck_assert_int_eq(ctl(&co, line), 0);
    SAYS(out, "id,kind,value,lower,upper,bound\na,analytic_eps,4.3771");
    SAYS(out, "b,analytic_eps,,,,\"sigma 0;");
    SAYS(err, "1 questions have no answer");
    snprintf(line, sizeof line, "privacy table %s --json", file);
    ck_assert_int_eq(ctl(&co, line), 0);
    json_t *list = json_loads(out, 0, NULL);
    ck_assert_uint_eq(json_array_size(list), 2);
    json_decref(list);
    SAYS(out, "\"refused\": \"sigma 0;");

    snprintf(line, sizeof line, "privacy plan %s/deploy/examples/job.yaml --json",
             TEST_SOURCE_ROOT);
    ck_assert_int_eq(ctl(&co, line), 0);
    ck_assert_double_eq(number_in("releases"), 50);
    ck_assert_double_le(number_in("epsilon_adaptive"), 8);
    SAYS(out, "\"alone_wins\": true");
    SAYS(err, "staying alone is predicted to win");
    snprintf(line, sizeof line, "privacy plan %s/deploy/examples/job.yaml --dimensions 500",
             TEST_SOURCE_ROOT);
    ck_assert_int_eq(ctl(&co, line), 0);
    SAYS(out, "joining is predicted to win");
    ck_assert_str_eq(err, "");
    /* The attack on the job's own mechanism: the claim holds, and it would have been noticed. */
    snprintf(file, sizeof file, "%s/audited.yaml", dir);
    f = fopen(file, "w");
    ck_assert_ptr_nonnull(f);
    fputs("name: audited\nstrategy: fedavg\nrounds: 10\n"
          "model: {input: [64], classes: 10, layers: [{linear: {out: 10}}]}\n"
          "train: {steps: 5, lr: 1}\nround: {members: 3}\nprivacy: {unit: example, clip: 1, "
          "epsilon: 8, delta: 1e-5, sampling_rate: 0.2, examples: 1000}\n",
          f);
    fclose(f);
    snprintf(line, sizeof line, "selftest dp %s --json", file);
    ck_assert_int_eq(ctl(&co, line), 0);
    SAYS(out, "\"claim_holds\": true");
    SAYS(out, "\"has_power\": true");
    ck_assert_double_le(number_in("epsilon_claimed"), 8);
    snprintf(line, sizeof line, "selftest dp %s --count 40", file);
    ck_assert_int_eq(ctl(&co, line), 1);
    SAYS(err, "too weak to say anything");
    snprintf(line, sizeof line, "selftest dp %s/deploy/examples/job.yaml --set privacy.unit=none",
             TEST_SOURCE_ROOT);
    ck_assert_int_eq(ctl(&co, line), 5);
    SAYS(err, "nothing to audit");
    snprintf(line, sizeof line, "privacy plan %s/deploy/examples/job.yaml --examples 100000",
             TEST_SOURCE_ROOT);
    ck_assert_int_eq(ctl(&co, line), 1);
    SAYS(err, "below 1/100000");
    co_stop(&co);
}
END_TEST

START_TEST(test_tables_and_documents)
{
    struct co co = {0};

    start(&co);
    ck_assert_int_eq(ctl(&co, "job list"), 0);
    ck_assert_str_eq(out, "no jobs\n");
    ck_assert_int_eq(ctl(&co, "job list --json"), 0);
    ck_assert_str_eq(out, "[]\n");
    ck_assert_int_eq(submit(&co), 0);
    SAYS(out, "JOB   ID  STATE    ROUND");
    SAYS(out, "demo   3  running    0/3");
    ck_assert_str_eq(co.what, "job submit job.yaml");
    ck_assert_int_eq(ctl(&co, "job show demo"), 0);
    SAYS(out, "\nname: demo\n");
    ck_assert_int_eq(ctl(&co, "job set demo round.quorum=8 rounds=9"), 0);
    ck_assert_str_eq(co.text, "rounds=9");
    ck_assert_int_eq(ctl(&co, "agent list"), 0);
    SAYS(out, "site-01  connected");
    SAYS(out, "site-02  away");
    ck_assert_int_eq(ctl(&co, "agent list --json"), 0);
    json_t *list = json_loads(out, 0, NULL);
    ck_assert_uint_eq(json_array_size(list), 2);
    json_decref(list);
    ck_assert_int_eq(ctl(&co, "agent explain site-01"), 0);
    SAYS(out, "demo      7     0  in quarantine: norm 9");
    ck_assert_int_eq(ctl(&co, "agent explain site-02"), 0);
    SAYS(out, "no job tells this agent from others");
    ck_assert_int_eq(ctl(&co, "agent models site-01"), 0);
    SAYS(out, "inherited  abcd000000000000");
    SAYS(out, "its own");
    ck_assert_int_eq(ctl(&co, "agent models site-02"), 0);
    SAYS(out, "no published model");
    ck_assert_int_eq(ctl(&co, "agent models site-01 --limit 1 --json"), 0);
    list = json_loads(out, 0, NULL);
    ck_assert_uint_eq(json_array_size(list), 1);
    json_decref(list);
    ck_assert_int_eq(ctl(&co, "round list demo --limit 2 --json"), 0);
    list = json_loads(out, 0, NULL);
    ck_assert_uint_eq(json_array_size(list), 2);
    json_decref(list);
    ck_assert_int_eq(ctl(&co, "round list demo"), 0);
    SAYS(out, "published");
    ck_assert_int_eq(ctl(&co, "status"), 0);
    SAYS(out, "0 connected of 2 enrolled");
    ck_assert_int_eq(ctl(&co, "verbs"), 0);
    SAYS(out, "model export");
    ck_assert_int_eq(ctl(&co, "reload"), 0);
    ck_assert_str_eq(co.what, "reload");
    ck_assert_str_eq(out, "reloaded; waits for a restart: listen, threads\n");
    ck_assert_int_eq(ctl(&co, "agent revoke site-01"), 0);
    ck_assert_str_eq(co.what, "agent revoke site-01");
    co_stop(&co);
}
END_TEST

START_TEST(test_rounds_for_people)
{
    struct co co = {0};

    start(&co);
    ck_assert_int_eq(submit(&co), 0);
    co.round = (struct fl_control_round){.job = "demo",
                                         .round = 2,
                                         .state = "collect",
                                         .wanted = 3,
                                         .quorum = 2,
                                         .invited = 3,
                                         .committed = 1,
                                         .exchanges = 1};
    ck_assert_int_eq(ctl(&co, "round show demo"), 0);
    SAYS(out, "1 committed of 3 wanted (quorum 2)");
    SAYS(out, "site-02  lost");
    ck_assert_int_eq(ctl(&co, "round show demo --json"), 0);
    json_t *o = json_loads(out, 0, NULL);
    ck_assert_uint_eq(json_array_size(json_object_get(o, "members")), 3);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(o, "round"), "round")), 2);
    json_decref(o);
    ck_assert_int_eq(ctl(&co, "round explain demo"), 0);
    SAYS(out, "Still out\n");
    SAYS(out, "the agent declined the task");
    ck_assert_int_eq(ctl(&co, "round explain demo --round 10"), 1);
    SAYS(err, "no round 10");
    co_stop(&co);
}
END_TEST

START_TEST(test_waiting)
{
    struct co co = {0};

    start(&co);
    ck_assert_int_eq(submit(&co), 0);
    ck_assert_int_eq(ctl(&co, "job wait demo --timeout 50ms"), 4);
    co.job.state = FL_JOB_DONE;
    ck_assert_int_eq(ctl(&co, "job wait demo"), 0);
    SAYS(out, "demo   3  done");
    co.job.state = FL_JOB_FAILED;
    co.job.why = "the disk is full";
    ck_assert_int_eq(ctl(&co, "job wait demo"), 1);
    SAYS(err, "job demo is failed: the disk is full");
    co.job.state = FL_JOB_CANCELLED;
    ck_assert_int_eq(ctl(&co, "watch demo"), 0);
    ck_assert_str_eq(out, "demo cancelled 0/3: the disk is full\n");
    ck_assert_int_eq(ctl(&co, "watch --timeout 50ms --json"), 4);
    json_t *o = json_loads(out, JSON_DISABLE_EOF_CHECK, NULL);
    ck_assert(json_is_array(json_object_get(o, "jobs")));
    json_decref(o);
    co_stop(&co);
}
END_TEST

START_TEST(test_watch_draws_on_a_terminal)
{
    struct co co = {0};

    start(&co);
    ck_assert_int_eq(submit(&co), 0);
    co.job.round_open = true;
    co.round = (struct fl_control_round){.job = "demo",
                                         .round = 2,
                                         .state = "collect",
                                         .wanted = 10,
                                         .quorum = 8,
                                         .committed = 5,
                                         .uploading = 2,
                                         .bytes_up = 3 << 20,
                                         .bytes_up_expected = 5 << 20};
    on_terminal = true;
    int code = ctl(&co, "watch --timeout 1500ms");
    on_terminal = false;
    ck_assert_int_eq(code, 4);
    SAYS(out, "round 2  [###############------...|.....] 5/10, quorum 8, 0 lost, collect");
    SAYS(out, "up 3.0 MiB of 5.0 MiB");
    SAYS(out, "\033[4A"); /* drawn over after a second */
    co_stop(&co);
}
END_TEST

START_TEST(test_export_keeps_only_the_right_bytes)
{
    struct co co = {0};
    char line[200], file[128], text[16] = "";

    start(&co);
    snprintf(file, sizeof file, "%s/model.safetensors", dir);
    snprintf(line, sizeof line, "model export demo -o %s", file);
    co.wrong_digest = true;
    ck_assert_int_eq(ctl(&co, line), 1);
    SAYS(err, "do not match its digest");
    ck_assert_int_eq(access(file, F_OK), -1);
    co.wrong_digest = false;
    ck_assert_int_eq(ctl(&co, line), 0);
    FILE *f = fopen(file, "rb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fread(text, 1, sizeof text - 1, f), 5);
    fclose(f);
    ck_assert_str_eq(text, "model");
    ck_assert_int_eq(ctl(&co, "model export demo -o -"), 0);
    ck_assert_str_eq(out, "model");
    ck_assert_int_eq(ctl(&co, "model export demo --round 7 -o -"), 1);
    unlink(file);
    co_stop(&co);
}
END_TEST

START_TEST(test_pki_and_enrolment)
{
    struct co co = {0};
    char line[300], key[65];

    start(&co);
    snprintf(line, sizeof line, "pki init %s/pki", dir);
    ck_assert_int_eq(ctl(&co, line), 0);
    SAYS(out, "pki refresh");
    snprintf(line, sizeof line, "pki issue %s/pki coordinator --dns localhost", dir);
    ck_assert_int_eq(ctl(&co, line), 0);
    snprintf(line, sizeof line, "pki issue %s/pki coordinator other", dir);
    ck_assert_int_eq(ctl(&co, line), 2);
    snprintf(line, sizeof line, "pki issue %s/pki agent site-{nn} --count 2 --json", dir);
    ck_assert_int_eq(ctl(&co, line), 0);
    json_t *list = json_loads(out, 0, NULL);
    json_t *second = json_array_get(list, 1);
    ck_assert_str_eq(json_string_value(json_object_get(second, "name")), "site-02");
    snprintf(key, sizeof key, "%s", json_string_value(json_object_get(second, "key")));
    json_decref(list);

    snprintf(line, sizeof line, "agent enrol %s/pki/site-01.crt %s/pki/site-02.crt", dir, dir);
    ck_assert_int_eq(ctl(&co, line), 0);
    SAYS(out, key);
    ck_assert_int_eq(co.changes, 2);
    char hex[65];
    for (size_t i = 0; i < 32; i++) {
        snprintf(hex + 2 * i, 3, "%02x", co.key[i]);
    }
    ck_assert_str_eq(hex, key);
    /* One that is enrolled before is no failure, one that cannot be is said, and the rest goes on.
     */
    snprintf(line, sizeof line,
             "agent enrol %s/pki/site-02.crt /nonexistent.crt %s/pki/site-01.crt", dir, dir);
    ck_assert_int_eq(ctl(&co, line), 1);
    SAYS(out, "was enrolled before: site-02");
    SAYS(err, "/nonexistent.crt: ");
    SAYS(out, "enrolled site-01");
    SAYS(err, "1 of 3 are not enrolled");
    ck_assert_int_eq(co.changes, 4);
    snprintf(line, sizeof line, "agent enrol --name taken %s/pki/site-01.crt", dir);
    ck_assert_int_eq(ctl(&co, line), 1);
    SAYS(err, "taken is enrolled with another key");
    snprintf(line, sizeof line, "pki revoke %s/pki site-02", dir);
    ck_assert_int_eq(ctl(&co, line), 0);
    snprintf(line, sizeof line, "pki list %s/pki", dir);
    ck_assert_int_eq(ctl(&co, line), 0);
    SAYS(out, "site-02      agent        revoked");
    snprintf(line, sizeof line, "pki refresh %s/pki", dir);
    ck_assert_int_eq(ctl(&co, line), 0);
    co_stop(&co);
}
END_TEST

int main(int argc, char **argv)
{
    const TTest *const tests[] = {test_exit_codes,
                                  test_every_command_has_help_and_completion,
                                  test_privacy_at_hand,
                                  test_tables_and_documents,
                                  test_rounds_for_people,
                                  test_waiting,
                                  test_watch_draws_on_a_terminal,
                                  test_export_keeps_only_the_right_bytes,
                                  test_pki_and_enrolment};
    char command[100];

    if (argc != 3) {
        fprintf(stderr, "usage: %s COHORTCTL COMPLETION\n", argv[0]);
        return 2;
    }
    program = argv[1];
    FILE *f = fopen(argv[2], "r");
    if (!f || fread(completion, 1, sizeof completion - 1, f) == 0) {
        perror(argv[2]);
        return 1;
    }
    fclose(f);
    snprintf(dir, sizeof dir, "/tmp/cohort-cohortctl-XXXXXX");
    if (!mkdtemp(dir)) {
        perror(dir);
        return 1;
    }
    snprintf(path, sizeof path, "%s/sock", dir);
    setenv("COHORT_SOCKET", path, 1);
    signal(SIGPIPE, SIG_IGN);
    int failed = run_tests("cohortctl", tests, FL_COUNT(tests));
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) == 0 ? failed : 1;
}
