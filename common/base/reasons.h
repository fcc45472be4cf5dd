/*
 * The registry of reasons: every refusal, drop and failure has a stable number, in logs, on the
 * wire and in exit messages. Numbers are never reused or renumbered. tests/lint.sh checks that
 * proto/WIRE.md has a row for each.
 *
 *   1..99   general          100..  configuration and job descriptions   200..  TLS and identity
 *   300..   frames, messages 400..  rounds and updates                   500..  privacy and the
 * site's policy 600..   storage          700..  data and models                      800..  control
 */
#ifndef FL_BASE_REASONS_H
#define FL_BASE_REASONS_H

#define FL_REASONS(X)                                                                              \
    X(1, INTERNAL, "internal", "a broken invariant; please report it")                             \
    X(2, NOMEM, "out-of-memory", "an allocation failed")                                           \
    X(3, SYS, "system-call", "the operating system refused a call")                                \
    X(4, LIMIT, "over-limit", "a documented ceiling was reached")                                  \
    X(5, ARG, "bad-argument", "a command line argument is wrong")                                  \
    X(6, CANCELLED, "cancelled", "the work was cancelled")                                         \
    X(7, SHUTDOWN, "shutting-down", "the daemon is stopping; come back later")                     \
    X(8, TIMEOUT, "timeout", "the other side took too long")                                       \
    X(9, BUSY, "busy", "try again later")                                                          \
    X(10, ENTROPY, "no-entropy", "the kernel gave no randomness; nothing is sent without it")      \
    X(100, CONF_OPEN, "conf-open", "a configuration file cannot be read")                          \
    X(101, CONF_SYNTAX, "conf-syntax", "the file is not the YAML that is understood here")         \
    X(102, CONF_UNKNOWN, "conf-unknown-key", "a key that does not exist")                          \
    X(103, CONF_TYPE, "conf-type", "a value of another type than the key has")                     \
    X(104, CONF_RANGE, "conf-range", "a value outside the allowed range")                          \
    X(105, CONF_DUPLICATE, "conf-duplicate-key", "a key given twice")                              \
    X(106, CONF_MISSING, "conf-missing-key", "a required key is missing")                          \
    X(107, CONF_CONFLICT, "conf-conflict", "two settings contradict each other")                   \
    X(110, PLAN_MODEL, "plan-model", "the model description does not fit together")                \
    X(111, PLAN_OVERFLOW, "plan-overflow", "integer sums of this job could overflow")              \
    X(112, PLAN_PRIVACY, "plan-privacy", "the privacy claim asked for cannot be made")             \
    X(113, PLAN_STRATEGY, "plan-strategy", "unknown strategy or one this job forbids")             \
    X(200, TLS_SETUP, "tls-setup", "certificate, key or CRL cannot be used")                       \
    X(201, TLS_KEYMODE, "tls-key-mode", "a private key file is readable by others")                \
    X(202, TLS_HANDSHAKE, "tls-handshake", "the TLS handshake failed")                             \
    X(203, TLS_NO_CERT, "tls-no-certificate", "the peer sent no certificate")                      \
    X(204, TLS_EXPIRED, "tls-expired", "the peer's certificate is expired or not yet valid")       \
    X(205, TLS_FOREIGN, "tls-foreign-ca", "the peer's certificate is from another authority")      \
    X(206, TLS_REVOKED, "tls-revoked", "the peer's certificate is revoked")                        \
    X(207, TLS_ALPN, "tls-alpn", "the peer does not speak cohort/1")                               \
    X(208, TLS_NAME, "tls-host-name", "the coordinator's certificate has another name")            \
    X(209, TLS_CLOSED, "tls-truncated", "the connection ended without a close notification")       \
    X(210, TLS_RECORD, "tls-record", "a damaged TLS record")                                       \
    X(211, NOT_ENROLLED, "not-enrolled", "the certificate's key is not on the enrolment list")     \
    X(212, AGENT_REVOKED, "agent-revoked", "the operator revoked this agent")                      \
    X(213, TLS_CRL, "tls-crl", "the revocation list is expired, unreadable or foreign")            \
    X(214, TLS_PROFILE, "tls-profile", "the peer's certificate uses a forbidden key or digest")    \
    X(215, TLS_VERSION, "tls-version", "the peer speaks no TLS 1.2")                               \
    X(300, FRAME_SIZE, "frame-size", "a frame longer than the limit of its phase, or empty")       \
    X(301, FRAME_PARSE, "frame-parse", "a frame that is not a message of this protocol")           \
    X(302, FRAME_BUDGET, "frame-budget", "a message that would unpack to more than its budget")    \
    X(303, FRAME_UNKNOWN, "frame-unknown-field", "a message with fields of no negotiated version") \
    X(304, MSG_ORDER, "message-order", "a message that this state does not expect")                \
    X(305, MSG_FIELD, "message-field", "a field out of range or of wrong length")                  \
    X(306, VERSION, "no-common-version", "no protocol version in common")                          \
    X(307, CAPABILITY, "no-capability", "the peer lacks a capability the job needs")               \
    X(308, PEER_SILENT, "peer-silent", "no heartbeat within the limit")                            \
    X(309, PEER_CLOSED, "peer-closed", "the peer closed the connection")                           \
    X(310, PEER_REPLACED, "peer-replaced", "the same agent connected again")                       \
    X(311, CONNECT, "connect", "the coordinator cannot be reached")                                \
    X(400, NO_JOB, "no-such-job", "no job of this name or incarnation")                            \
    X(401, NO_ROUND, "no-such-round", "the round is not open")                                     \
    X(402, NOT_MEMBER, "not-a-member", "the agent is not in this round")                           \
    X(403, ROUND_OVER, "round-over", "the round closed without this update")                       \
    X(404, UPDATE_LENGTH, "update-length", "an update of another length than the plan gives")      \
    X(405, UPDATE_DIGEST, "update-digest", "the bytes do not match the announced digest")          \
    X(406, UPDATE_RANGE, "update-range", "a value outside the grid of the plan")                   \
    X(407, UPDATE_CONFLICT, "update-conflict", "another update of this agent is committed")        \
    X(408, UPDATE_SHAPE, "update-shape", "an update for another plan")                             \
    X(409, QUORUM, "too-few-updates", "the deadline passed below quorum")                          \
    X(410, JOB_STATE, "job-state", "the job's state does not allow this")                          \
    X(411, NO_WORK, "no-work", "no round wants this agent now")                                    \
    X(412, DECLINED, "declined", "the agent declined the task")                                    \
    X(413, DEADLINE, "deadline", "the round's deadline passed")                                    \
    X(414, OFFSET, "bad-offset", "a chunk at another offset than agreed")                          \
    X(415, DROPPED, "dropped", "the member left the round")                                        \
    X(416, NO_OBJECT, "no-such-object", "no object of this digest is offered to this agent")       \
    X(417, RECEIPT, "receipt", "a receipt that does not verify or is of another update")           \
    X(430, SECAGG_OBJECT, "secagg-object", "a malformed object of a secure sum")                   \
    X(431, SECAGG_KEYS, "secagg-keys", "keys or certificates in a secure sum that do not fit")     \
    X(432, SECAGG_VIEW, "secagg-view", "the coordinator contradicts itself, or too few agree")     \
    X(433, SECAGG_SHARE, "secagg-share", "a share that is not the one that was dealt")             \
    X(434, SECAGG_FEW, "secagg-too-few", "too few agents are left for a secure sum")               \
    X(500, BUDGET_SPENT, "budget-spent", "the site's privacy budget does not allow this release")  \
    X(501, POLICY_JOB, "job-not-allowed", "the site's configuration does not allow this job")      \
    X(502, POLICY_NOISE, "policy-noise", "the job asks for less privacy than the site allows")     \
    X(503, WITHDRAWN, "withdrawn", "the site's administrator withdrew from this job")              \
    X(504, LEDGER, "ledger", "the ledger cannot be read, written or trusted")                      \
    X(505, INTENT, "intent-mismatch", "a recorded intent does not fit its inputs; not reused")     \
    X(506, NOT_FINITE, "not-finite", "NaN or infinity before clipping; nothing is released")       \
    X(507, WINDOW, "outside-window", "the site's time window does not allow work now")             \
    X(508, ACCOUNTING, "accounting", "an epsilon cannot be computed for these events")             \
    X(509, REJECTED, "rejected", "the site's administrator did not approve this update")           \
    X(510, PARTICIPATION, "participation",                                                         \
      "this site took part already as often as the noise covers")                                  \
    X(511, TRAP, "trap", "a model made to give away single examples")                              \
    X(600, STORE_OPEN, "store-open", "the state folder or its database cannot be opened")          \
    X(601, STORE_CORRUPT, "store-corrupt", "the database is damaged")                              \
    X(602, STORE_FOREIGN, "store-foreign", "the database belongs to another program or version")   \
    X(603, STORE_LOCKED, "store-locked", "another process uses the state folder")                  \
    X(604, STORE_IO, "store-io", "a durable write failed")                                         \
    X(605, DISK_FULL, "disk-full", "no space left")                                                \
    X(606, QUOTA, "quota", "a retention quota would be exceeded")                                  \
    X(607, STORE_MISMATCH, "store-mismatch", "stored bytes do not match their digest")             \
    X(608, FILE_MODE, "file-mode", "a file that must be private is not")                           \
    X(609, AUDIT, "audit", "a chain of records is not what it says it is")                         \
    X(700, DATA_OPEN, "data-open", "a data file cannot be read")                                   \
    X(701, DATA_FORMAT, "data-format", "a data file is not of the stated format")                  \
    X(702, DATA_TRUNCATED, "data-truncated", "a data file ends early")                             \
    X(703, DATA_VALUE, "data-value", "a value that cannot be used")                                \
    X(704, DATA_EMPTY, "data-empty", "no examples for this agent")                                 \
    X(705, DATA_SHAPE, "data-shape", "the data do not have the shape the model takes")             \
    X(706, TENSORS, "tensors", "a safetensors file that cannot be read")                           \
    X(707, TRAIN, "training-failed", "local training failed")                                      \
    X(708, DATA_CATEGORY, "data-category", "a category that the agreed dictionary does not have")  \
    X(709, DATA_ENCODING, "data-encoding", "text that is not UTF-8")                               \
    X(710, DATA_TARGET, "data-target", "a row without a target")                                   \
    X(711, DATA_RAGGED, "data-ragged", "a row with more or fewer fields than the first")           \
    X(712, DATA_COLUMN, "data-column", "a column the job names is not in the file")                \
    X(713, DATA_BATCH, "data-batch", "a batch is larger than the data")                            \
    X(714, DATA_CHANGED, "data-changed", "a data file was rewritten while it was in use")          \
    X(720, EXEC_NONE, "exec-none", "the site's configuration names no trainer program")            \
    X(721, EXEC_START, "exec-start", "the trainer program cannot be started")                      \
    X(722, EXEC_TIME, "exec-time", "the trainer program ran longer than the site allows")          \
    X(723, EXEC_OUTPUT, "exec-output", "the trainer program wrote more than the site allows")      \
    X(724, EXEC_SIGNAL, "exec-signal", "the trainer program was ended by a signal")                \
    X(725, EXEC_EXIT, "exec-exit", "the trainer program ended with an error")                      \
    X(726, EXEC_ANSWER, "exec-answer", "the trainer program's answer is not understood")           \
    X(727, EXEC_TENSORS, "exec-tensors",                                                           \
      "the trainer program's tensors are not those of the model")                                  \
    X(800, CTL_CONNECT, "control-connect", "nothing listens on the control socket")                \
    X(801, CTL_PEER, "control-peer", "this user may not use the control socket")                   \
    X(802, CTL_REQUEST, "control-request", "a request that is not understood")                     \
    X(803, CTL_EXISTS, "exists", "there is one already")                                           \
    X(804, CTL_LISTEN, "control-listen", "the control socket cannot be made at this path")

enum fl_reason {
#define FL_REASON_ENUM(number, name, text, meaning) FL_R_##name = number,
    FL_REASONS(FL_REASON_ENUM)
#undef FL_REASON_ENUM
};

#endif
