/*
 * Everything that is said to SQLite: the tables, and every statement by name. Statements are
 * prepared once, when first used. STRICT tables check the types; foreign keys and the partial
 * indexes state what must never be, so that a wrong program fails instead of recording it.
 */
#ifndef SERVER_STORE_SQL_H
#define SERVER_STORE_SQL_H

/*
 * plan:     texts by digest, so that a thousand rounds of one plan keep one copy.
 * round:    open while published_ms = 0; at most one per job.
 * member:   who was invited, and (closed_in) who is in the closed exchange.
 * upload:   what was accepted. The row outlives the bytes by late_rounds.
 * transcript, transcript_member: what each published round was made of; see transcript.c.
 */
/* What schema 2 added. mark: how far an agent's ledger was, as it last told. (Folders with
 * transcripts and without marks existed.) */
#define FL_STORE_TABLES_2                                                                          \
    "CREATE TABLE mark(agent INTEGER PRIMARY KEY REFERENCES agent(id),"                            \
    " releases INTEGER NOT NULL, head BLOB NOT NULL CHECK(length(head) = 32)) STRICT;"             \
    "CREATE TABLE IF NOT EXISTS transcript(job INTEGER NOT NULL REFERENCES job(id), round "        \
    "INTEGER NOT NULL,"                                                                            \
    " plan BLOB NOT NULL CHECK(length(plan) = 32), base BLOB NOT NULL CHECK(length(base) = 32),"   \
    " checkpoint BLOB NOT NULL CHECK(length(checkpoint) = 32),"                                    \
    " model BLOB NOT NULL CHECK(length(model) = 32), published_ms INTEGER NOT NULL,"               \
    " members INTEGER NOT NULL, previous BLOB NOT NULL CHECK(length(previous) = 32),"              \
    " digest BLOB NOT NULL CHECK(length(digest) = 32),"                                            \
    " PRIMARY KEY(job, round)) STRICT, WITHOUT ROWID;"                                             \
    "CREATE TABLE IF NOT EXISTS transcript_member(job INTEGER NOT NULL, round INTEGER NOT NULL,"   \
    " exchange INTEGER NOT NULL, agent INTEGER NOT NULL REFERENCES agent(id),"                     \
    " weight INTEGER NOT NULL, size INTEGER NOT NULL,"                                             \
    " digest BLOB NOT NULL CHECK(length(digest) = 32),"                                            \
    " PRIMARY KEY(job, round, exchange, agent)) STRICT, WITHOUT ROWID;"                            \
    "CREATE INDEX member_in ON member(agent, job, round) WHERE closed_in = 1;"

/* What schema 3 added. base: the round of the task that a member has, 0 = this round's. */
#define FL_STORE_TABLES_3 "ALTER TABLE member ADD COLUMN base INTEGER NOT NULL DEFAULT 0;"

#define FL_STORE_TABLES                                                                            \
    "CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK(id = 1), coordinator BLOB NOT NULL"            \
    " CHECK(length(coordinator) = 16), created_ms INTEGER NOT NULL) STRICT;"                       \
    "CREATE TABLE agent(id INTEGER PRIMARY KEY AUTOINCREMENT,"                                     \
    " key BLOB NOT NULL UNIQUE CHECK(length(key) = 32), name TEXT NOT NULL UNIQUE,"                \
    " serial TEXT NOT NULL, revoked INTEGER NOT NULL DEFAULT 0) STRICT;"                           \
    "CREATE TABLE job(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,"                   \
    " incarnation BLOB NOT NULL UNIQUE CHECK(length(incarnation) = 16), state INTEGER NOT NULL,"   \
    " text BLOB NOT NULL, round INTEGER NOT NULL,"                                                 \
    " checkpoint BLOB NOT NULL CHECK(length(checkpoint) = 32), model_size INTEGER NOT NULL,"       \
    " model BLOB NOT NULL CHECK(length(model) = 32), why TEXT NOT NULL) STRICT;"                   \
    "CREATE UNIQUE INDEX job_alive ON job(name) WHERE state < 3;"                                  \
    "CREATE TABLE checkpoint(job INTEGER NOT NULL REFERENCES job(id), round INTEGER NOT NULL,"     \
    " digest BLOB NOT NULL CHECK(length(digest) = 32), size INTEGER NOT NULL,"                     \
    " PRIMARY KEY(job, round)) STRICT, WITHOUT ROWID;"                                             \
    "CREATE TABLE plan(digest BLOB PRIMARY KEY CHECK(length(digest) = 32),"                        \
    " text BLOB NOT NULL) STRICT;"                                                                 \
    "CREATE TABLE round(job INTEGER NOT NULL REFERENCES job(id), round INTEGER NOT NULL,"          \
    " plan BLOB NOT NULL REFERENCES plan(digest), base BLOB NOT NULL CHECK(length(base) = 32),"    \
    " closed INTEGER NOT NULL DEFAULT 0, opened_ms INTEGER NOT NULL,"                              \
    " closed_ms INTEGER NOT NULL DEFAULT 0, published_ms INTEGER NOT NULL DEFAULT 0,"              \
    " invited INTEGER NOT NULL DEFAULT 0,"                                                         \
    " committed INTEGER NOT NULL DEFAULT 0, checkpoint BLOB,"                                      \
    " PRIMARY KEY(job, round)) STRICT, WITHOUT ROWID;"                                             \
    "CREATE UNIQUE INDEX round_open ON round(job) WHERE published_ms = 0;"                         \
    "CREATE INDEX round_plan ON round(plan);"                                                      \
    "CREATE TABLE exchange(job INTEGER NOT NULL, round INTEGER NOT NULL,"                          \
    " exchange INTEGER NOT NULL, digest BLOB NOT NULL CHECK(length(digest) = 32),"                 \
    " PRIMARY KEY(job, round, exchange),"                                                          \
    " FOREIGN KEY(job, round) REFERENCES round(job, round)) STRICT, WITHOUT ROWID;"                \
    "CREATE TABLE member(job INTEGER NOT NULL, round INTEGER NOT NULL, exchange INTEGER NOT NULL," \
    " agent INTEGER NOT NULL REFERENCES agent(id), closed_in INTEGER NOT NULL DEFAULT 0,"          \
    " PRIMARY KEY(job, round, exchange, agent),"                                                   \
    " FOREIGN KEY(job, round) REFERENCES round(job, round)) STRICT, WITHOUT ROWID;"                \
    "CREATE TABLE upload(job INTEGER NOT NULL, round INTEGER NOT NULL, exchange INTEGER NOT NULL," \
    " agent INTEGER NOT NULL REFERENCES agent(id), weight INTEGER NOT NULL,"                       \
    " size INTEGER NOT NULL, digest BLOB NOT NULL CHECK(length(digest) = 32),"                     \
    " PRIMARY KEY(job, round, exchange, agent),"                                                   \
    " FOREIGN KEY(job, round) REFERENCES round(job, round)) STRICT, WITHOUT "                      \
    "ROWID;" FL_STORE_TABLES_2 FL_STORE_TABLES_3                                                   \
    "CREATE TABLE audit(id INTEGER PRIMARY KEY, wall_ms INTEGER NOT NULL, who TEXT NOT NULL,"      \
    " what TEXT NOT NULL) STRICT;"

/* X(name, sql) */
#define FL_STORE_SQL(X)                                                                            \
    X(BEGIN, "BEGIN IMMEDIATE")                                                                    \
    X(COMMIT, "COMMIT")                                                                            \
    X(ROLLBACK, "ROLLBACK")                                                                        \
    X(META_ADD, "INSERT INTO meta(id, coordinator, created_ms) VALUES(1, ?, ?)")                   \
    X(META, "SELECT coordinator FROM meta")                                                        \
    X(AGENT_ADD, "INSERT INTO agent(key, name, serial) VALUES(?, ?, ?)")                           \
    X(AGENT_REVOKE, "UPDATE agent SET revoked = 1 WHERE name = ?")                                 \
    X(AGENT_COUNT, "SELECT count(*) FROM agent")                                                   \
    X(AGENT_HAS, "SELECT 1 FROM agent WHERE id = ?")                                               \
    X(AGENTS, "SELECT id, key, name, serial, revoked, coalesce(releases, 0), head FROM agent"      \
              " LEFT JOIN mark ON mark.agent = agent.id ORDER BY id")                              \
    X(MARK, "INSERT INTO mark(agent, releases, head) VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET"    \
            " releases = excluded.releases, head = excluded.head"                                  \
            " WHERE excluded.releases > releases")                                                 \
    X(MODELS_WITH,                                                                                 \
      "SELECT j.name, r.round, r.published_ms, r.checkpoint, EXISTS(SELECT 1 FROM member m"        \
      "  WHERE m.agent = ?1 AND m.job = r.job AND m.round = r.round AND m.closed_in = 1)"          \
      " FROM round r JOIN job j ON j.id = r.job JOIN (SELECT job, min(round) AS first FROM member" \
      "  WHERE agent = ?1 AND closed_in = 1 GROUP BY job) f ON f.job = r.job"                      \
      " WHERE r.round >= f.first AND r.published_ms > 0"                                           \
      " ORDER BY r.published_ms DESC, r.round DESC LIMIT ?2")                                      \
    X(JOB_ADD, "INSERT INTO job(name, incarnation, state, text, round, checkpoint, model_size,"    \
               " model, why) VALUES(?, ?, ?, ?, 0, ?, ?, ?, '')")                                  \
    X(JOB_COUNT, "SELECT count(*) FROM job")                                                       \
    X(JOB_STATE, "UPDATE job SET state = ?, why = ? WHERE id = ?")                                 \
    X(JOB_TEXT, "UPDATE job SET text = ? WHERE id = ?")                                            \
    X(JOB_PUBLISH,                                                                                 \
      "UPDATE job SET round = ?, checkpoint = ?, model = ?, model_size = ? WHERE id = ?")          \
    X(JOB,                                                                                         \
      "SELECT incarnation, state, round, checkpoint, model, model_size FROM job WHERE id = ?")     \
    X(JOBS, "SELECT id, name, incarnation, state, text, round, checkpoint, model_size, model, why" \
            " FROM job ORDER BY id")                                                               \
    X(CHECKPOINT_ADD, "INSERT INTO checkpoint(job, round, digest, size) VALUES(?, ?, ?, ?)")       \
    X(CHECKPOINT_HAS, "SELECT 1 FROM checkpoint WHERE job = ? AND round = ? AND digest = ?")       \
    X(CHECKPOINT_TRIM, "DELETE FROM checkpoint WHERE job = ?1 AND round NOT IN (SELECT round FROM" \
                       " checkpoint WHERE job = ?1 ORDER BY round DESC LIMIT ?2)")                 \
    X(CHECKPOINTS, "SELECT j.id, j.incarnation, c.round, c.digest, c.size,"                        \
                   " j.state < 3 AND c.round = j.round"                                            \
                   " FROM checkpoint c JOIN job j ON j.id = c.job ORDER BY j.id, c.round")         \
    X(PLAN_ADD, "INSERT OR IGNORE INTO plan(digest, text) VALUES(?, ?)")                           \
    X(PLAN, "SELECT text FROM plan WHERE digest = ?")                                              \
    X(PLAN_TRIM, "DELETE FROM plan WHERE digest NOT IN (SELECT plan FROM round)")                  \
    X(ROUND_ADD, "INSERT INTO round(job, round, plan, base, opened_ms) VALUES(?, ?, ?, ?, ?)")     \
    X(ROUND, "SELECT plan, base, closed, published_ms, checkpoint FROM round"                      \
             " WHERE job = ? AND round = ?")                                                       \
    X(ROUND_OPEN, "SELECT r.round, p.text, r.plan, r.base, r.closed, r.opened_ms FROM round r"     \
                  " JOIN plan p ON p.digest = r.plan"                                              \
                  " WHERE r.job = ? AND r.published_ms = 0")                                       \
    X(ROUND_CLOSE, "UPDATE round SET closed = ?, closed_ms = ? WHERE job = ? AND round = ?")       \
    X(ROUND_COUNT, "UPDATE round SET"                                                              \
                   " invited = (SELECT count(*) FROM member m"                                     \
                   "  WHERE m.job = round.job AND m.round = round.round),"                         \
                   " committed = (SELECT count(*) FROM upload u"                                   \
                   "  WHERE u.job = round.job AND u.round = round.round)"                          \
                   " WHERE job = ? AND round = ?")                                                 \
    X(ROUND_PUBLISH,                                                                               \
      "UPDATE round SET published_ms = ?, checkpoint = ? WHERE job = ? AND round = ?")             \
    X(ROUNDS, "SELECT round, opened_ms, closed_ms, published_ms,"                                  \
              " CASE WHEN published_ms THEN invited ELSE (SELECT count(*)"                         \
              "  FROM member m WHERE m.job = r.job AND m.round = r.round) END,"                    \
              " CASE WHEN published_ms THEN committed ELSE (SELECT count(*)"                       \
              "  FROM upload u WHERE u.job = r.job AND u.round = r.round) END,"                    \
              " plan, checkpoint FROM round r WHERE job = ? ORDER BY round DESC LIMIT ?")          \
    X(ROUND_TRIM, "DELETE FROM round WHERE job = ? AND round <= ?")                                \
    X(EXCHANGE_ADD, "INSERT INTO exchange(job, round, exchange, digest) VALUES(?, ?, ?, ?)")       \
    X(EXCHANGE, "SELECT digest FROM exchange WHERE job = ? AND round = ? AND exchange = ?")        \
    X(EXCHANGE_TRIM, "DELETE FROM exchange WHERE job = ? AND round <= ?")                          \
    X(MEMBER_ADD,                                                                                  \
      "INSERT INTO member(job, round, exchange, agent, base) VALUES(?1, ?2, ?3, ?4,"               \
      " ?5) ON CONFLICT DO UPDATE SET base = ?5 WHERE NOT EXISTS (SELECT 1 FROM upload"            \
      " WHERE job = ?1 AND round = ?2 AND exchange = ?3 AND agent = ?4)")                          \
    X(MEMBER_CLOSE, "INSERT INTO member(job, round, exchange, agent, closed_in)"                   \
                    " VALUES(?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET closed_in = 1")              \
    X(MEMBERS,                                                                                     \
      "SELECT agent, closed_in, base FROM member WHERE job = ? AND round = ? AND exchange = ?"     \
      " ORDER BY agent")                                                                           \
    X(MEMBER_TRIM, "DELETE FROM member WHERE job = ? AND round <= ?")                              \
    X(UPLOAD_ADD, "INSERT INTO upload(job, round, exchange, agent, weight, size, digest)"          \
                  " VALUES(?, ?, ?, ?, ?, ?, ?)")                                                  \
    X(UPLOAD, "SELECT digest FROM upload"                                                          \
              " WHERE job = ? AND round = ? AND exchange = ? AND agent = ?")                       \
    X(UPLOAD_MADE, "SELECT u.digest FROM upload u LEFT JOIN member m"                              \
                   " USING(job, round, exchange, agent) WHERE u.job = ?1 AND u.round >= ?2"        \
                   " AND u.exchange = ?3 AND u.agent = ?4"                                         \
                   " AND CASE WHEN coalesce(m.base, 0) = 0 THEN u.round ELSE m.base END = ?2")     \
    X(UPLOADS, "SELECT agent, weight, size, digest FROM upload"                                    \
               " WHERE job = ? AND round = ? AND exchange = ? ORDER BY agent")                     \
    X(UPLOADS_OPEN, "SELECT j.id, j.incarnation, u.round, u.exchange, u.agent, u.size, u.digest,"  \
                    " j.state < 3 FROM round r JOIN job j ON j.id = r.job"                         \
                    " JOIN upload u ON u.job = r.job AND u.round = r.round"                        \
                    " WHERE r.published_ms = 0 AND j.state NOT IN (3, 4)")                         \
    X(UPLOADS_KEPT, "SELECT j.incarnation, t.round, t.exchange, t.agent, t.size, t.digest"         \
                    " FROM transcript_member t JOIN job j ON j.id = t.job"                         \
                    " WHERE t.round > j.round - ?")                                                \
    X(REPLAY, "SELECT p.text, t.checkpoint, c.digest FROM transcript t"                            \
              " JOIN plan p ON p.digest = t.plan"                                                  \
              " JOIN checkpoint c ON c.job = t.job AND c.round = t.round - 1"                      \
              " WHERE t.job = ? AND t.round = ?")                                                  \
    X(INCLUSION, "SELECT t.digest, t.model, m.digest, m.weight, m.size FROM transcript t"          \
                 " LEFT JOIN transcript_member m ON m.job = t.job AND m.round = t.round"           \
                 " AND m.exchange = ?3 AND m.agent = ?4 WHERE t.job = ?1 AND t.round = ?2")        \
    X(TRANSCRIPT_UPDATES, "SELECT exchange, agent, weight, size, digest FROM transcript_member"    \
                          " WHERE job = ? AND round = ? ORDER BY exchange, agent")                 \
    X(UPLOAD_TRIM, "DELETE FROM upload WHERE job = ? AND round <= ?")                              \
    X(PART_WANTED, "SELECT 1 FROM job j JOIN round r ON r.job = j.id"                              \
                   " WHERE j.incarnation = ?1 AND j.state NOT IN (3, 4) AND r.round = ?2"          \
                   " AND r.published_ms = 0 AND r.closed <= ?3"                                    \
                   " AND NOT EXISTS (SELECT 1 FROM upload u WHERE u.job = j.id AND u.round = ?2"   \
                   "  AND u.exchange = ?3 AND u.agent = ?4)")                                      \
    X(TRANSCRIPT_JOB, "SELECT name, incarnation FROM job WHERE id = ?")                            \
    X(TRANSCRIPT_HEAD, "SELECT round, digest FROM transcript WHERE job = ?"                        \
                       " ORDER BY round DESC LIMIT 1")                                             \
    X(TRANSCRIPT_ADD, "INSERT INTO transcript(job, round, plan, base, checkpoint, model,"          \
                      " published_ms, members, previous, digest) VALUES(?1, ?2, ?3, ?4, ?5, ?6,"   \
                      " ?7, (SELECT count(*) FROM transcript_member WHERE job = ?1"                \
                      " AND round = ?2), ?8, ?9)")                                                 \
    X(TRANSCRIPT_MEMBERS_ADD,                                                                      \
      "INSERT INTO transcript_member(job, round, exchange, agent, weight, size, digest)"           \
      " SELECT u.job, u.round, u.exchange, u.agent, u.weight, u.size, u.digest FROM upload u"      \
      " JOIN member m USING(job, round, exchange, agent)"                                          \
      " WHERE u.job = ? AND u.round = ? AND m.closed_in = 1")                                      \
    X(TRANSCRIPT_MEMBERS,                                                                          \
      "SELECT t.exchange, a.key, t.digest, t.weight, t.size FROM transcript_member t"              \
      " JOIN agent a ON a.id = t.agent WHERE t.job = ? AND t.round = ?"                            \
      " ORDER BY t.exchange, t.agent")                                                             \
    X(TRANSCRIPTS, "SELECT round, plan, base, checkpoint, model, published_ms, previous, digest"   \
                   " FROM transcript WHERE job = ? AND round > ? ORDER BY round LIMIT 1")          \
    X(TRANSCRIPT_OLD, "SELECT coalesce(max(round), 0) FROM (SELECT round, sum(members + 1)"        \
                      " OVER (ORDER BY round DESC) AS rows_from FROM transcript WHERE job = ?)"    \
                      " WHERE rows_from > ?")                                                      \
    X(TRANSCRIPT_TRIM, "DELETE FROM transcript WHERE job = ? AND round <= ?")                      \
    X(TRANSCRIPT_MEMBER_TRIM, "DELETE FROM transcript_member WHERE job = ? AND round <= ?")        \
    X(AUDIT_ADD, "INSERT INTO audit(wall_ms, who, what) VALUES(?, ?, ?)")                          \
    X(AUDIT_TRIM, "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?")                 \
    X(AUDITS, "SELECT wall_ms, who, what FROM audit ORDER BY id DESC LIMIT ?")

enum fl_sql {
#define FL_SQL_ENUM(name, text) FL_SQL_##name,
    FL_STORE_SQL(FL_SQL_ENUM)
#undef FL_SQL_ENUM
        FL_SQL_COUNT
};

#endif
