/*
 * history_schema - the tables, the statements, and why they are so.
 *
 * THE MODEL
 * `turns` has a partition for each chat and month, ((chat, bucket), turn, part, rev) (contract 9, 11.8).  What the port asks to
 * be atomic lies in ONE partition, so that one batch under one Paxos round (a "lightweight transaction", LWT) writes it:
 *   - static columns, the chat's state: head, idx, change, updated; base (`change` when the bucket was opened), next (the bucket
 *     after it, once it is closed), deleted, gone (the turns deleted while it was current);
 *   - a row for each part of a turn; its `change` is the chat's at that write;
 *   - a claim for each client id: a row whose `turn` is that id's hash with the UUID version set to 0, so that no turn has it and
 *     claims lie before all turns.
 *
 * Exactly one bucket of a chat is current, the last one of the chain; all others are closed (`next` is set) and never written
 * again but for erasing.  EVERY write goes into the current bucket, that of an old turn (an edit, a regeneration months later)
 * too: a row of turn T lies in a bucket >= month(T), and in month(T) itself but for those.  So:
 *   - `change` is one number in one partition, moved by each write together with its rows: it grows strictly, and no reader that
 *     sees n can miss a row of n or less.  (With late rows in the old bucket, number and row would lie in two partitions,
 *     written one after the other, and a reader of max(change) would skip what is still to come.)
 *   - closed buckets don't change: what is read there needs no condition, only that they were known to be closed before.
 * The price: the rows of an OLD turn are read from its month up to the current one (bucket IN …).
 *
 *   accept   LWT batch {state: head, idx, change + 1 IF head = as read AND change = guess AND next, deleted = null; part 0;
 *            claim IF NOT EXISTS}.  Not applied: the answer holds the state and the claim, so it says which condition failed.
 *            Before it, where the chat has closed buckets, one read of the claim in those: closed means no claim is added any
 *            more.  The order (first the current bucket, then the old ones are closed, then the look, then the write) makes a
 *            client id unique over all months.
 *   append   LWT batch {state: change + 1 IF change = guess AND next, deleted, gone[turn] = null; each row IF NOT EXISTS}.
 *            That the turn exists is remembered from the read before (turns never vanish but with their chat), else read.  For
 *            an old turn its closed buckets are read first: what stands there stands for good.
 *   a new month  LWT close: next = M' IF next = null and the state is as known; LWT on `chats`: buckets + M' unless the chat
 *            is deleted; LWT open: state carried over IF head = null.  Each is idempotent and whoever meets a closed bucket
 *            finishes it.  A bucket is listed before it is written to, so a reader's list holds all that has rows.
 *   chat_create  the first bucket with state and greeting (LWT), then the client id's claim (LWT), then the `chats` row (LWT): a
 *            chat is there once that row is; whoever finds a claim without it completes it from the claim.  Lists last.
 *   chat_delete  the newest bucket (LWT batch {deleted = true; all rows deleted IF next, deleted = null}; closed: the next one), the
 *            key (LWT, a row that says destroyed stays), the `chats` row (LWT, deleted stays), then each older bucket (the same
 *            batch), the lists, and last the row's buckets (LWT).  An accept or append names `deleted = null` of the newest bucket,
 *            so from the first step on it is refused, whoever issues it.  A row that is deleted and has buckets is a deletion that
 *            was begun: whoever meets it finishes it (history_gone.c).
 *   turn deletion  the event's batch also sets gone[turn]: from then on no row of the turn is added.  Then its texts are erased, an
 *            LWT batch a bucket, before the answer; again where the event is issued again; and by whoever reads a deleted turn that
 *            has words still.
 *
 * Conditional and plain writes never meet on a row: `turns`, `chats`, `clients` and `keys` know only the former, the other tables
 * only the latter (deletions of rows ride in an LWT batch, so that their timestamps are Paxos' too).
 * A destroyed key or an erased text is out of reach at once and out of the files when Cassandra compacts them; overwriting (a
 * column set anew) rather than a tombstone lets a compaction drop it without waiting for gc_grace_seconds.
 *
 * CONSISTENCY  QUORUM for reads and plain writes, SERIAL for Paxos: one order over all data centres.  With consistency=local
 * LOCAL_QUORUM and LOCAL_SERIAL: a chat must then be written from ONE data centre, since two would each decide for themselves.
 *
 * A conditional write that is cut off in its last step is agreed upon and lies on one replica alone.  A read that asks two may find
 * it, and gives the other what it asked for: the state of change n, say, and not its row.  The next read, of the row, may ask two
 * others and find nothing.  So a state and rows that are read one after the other tell of one moment only if that state is
 * settled: read by Paxos, which first takes the write to a majority (and before each write the one before it, so all of them).
 * The client knows no serial read; ST_STATE_SERIAL is a conditional write whose condition never holds, and whose answer is the
 * state.  All else needs none: writes are conditional, a turn is read as it was when it was answered, and of a closed bucket all
 * rows were at a majority before it was closed.
 *
 * ROUND TRIPS (L: conditional write, or a read by Paxos; R: read; in the common case, the chat is remembered and its month is the current one)
 *   accept L (R L with closed buckets) · append L · chat_get R · turn_get R · turns L R · key_get R · key_put L
 *   changed R (R L where nothing changed; R L R R where an old turn did, or the month has turned).  The first reads only what is behind
 *   the newest known turn: each change has a row, so the numbers say whether that was all; the others read the month through
 *   chat_create L L L and 3 plain at once · chat_delete R L L L, L an older bucket, R and 2 or 3 plain, L · a new month 3 L
 *   A chat not remembered costs R more (its `chats` row); an old turn's append R more; a wrong guess of `change` L more.
 */
#include "adapter/cassandra/history_impl.h"

const char *const cass_ddl[] = {
    "CREATE TABLE IF NOT EXISTS @turns ("
    "  chat uuid, bucket int, turn uuid, part int, rev int,"
    "  head uuid static, idx bigint static, change_no bigint static, updated bigint static, base bigint static,"
    "  next int static, deleted boolean static, gone map<uuid, boolean> static,"
    "  claimed uuid, role int, character text, user uuid, created bigint, change bigint, predecessor uuid, turn_no "
    "bigint,"
    "  language text, attempt bigint, finish int, code text, prompt_tokens bigint, cached_tokens bigint,"
    "  completion_tokens bigint, ttft_ms bigint, event int, variant int, known int, sealed blob,"
    "  PRIMARY KEY ((chat, bucket), turn, part, rev))",
    "CREATE TABLE IF NOT EXISTS @chats ("
    "  chat uuid PRIMARY KEY, user uuid, character text, created bigint, month int, buckets set<int>, deleted bigint)",
    "CREATE TABLE IF NOT EXISTS @clients ("
    "  user uuid, client blob, chat uuid, character text, created bigint, bucket int, PRIMARY KEY (user, client))",
    "CREATE TABLE IF NOT EXISTS @chats_by_user ("
    "  user uuid, chat uuid, character text, created bigint, PRIMARY KEY (user, chat))"
    "  WITH CLUSTERING ORDER BY (chat DESC)",
    "CREATE TABLE IF NOT EXISTS @chats_by_character ("
    "  character text, month int, chat uuid, user uuid, created bigint, PRIMARY KEY ((character, month), chat))",
    "CREATE TABLE IF NOT EXISTS @selected (user uuid PRIMARY KEY, character text, chat uuid)",
    "CREATE TABLE IF NOT EXISTS @keys (owner int, id text, wrapped blob, destroyed boolean, PRIMARY KEY ((owner, id)))",
    "CREATE TABLE IF NOT EXISTS @schema_version (id int PRIMARY KEY, version int)",
    NULL,
};

#define STATE "head, idx, change_no, updated, base, next, deleted"
#define ROW_COLUMNS                                                                                                    \
    "turn, part, rev, role, character, user, created, change, predecessor, turn_no, language, attempt, finish, code,"  \
    " prompt_tokens, cached_tokens, completion_tokens, ttft_ms, event, variant, known, sealed"
#define IN_BUCKET " WHERE chat = ? AND bucket = ?"
#define IN_BUCKETS " WHERE chat = ? AND bucket IN ?"
#define ROW_INSERT                                                                                                     \
    "INSERT INTO @turns (chat, bucket, " ROW_COLUMNS ")"                                                               \
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
#define OPEN " AND next = null AND deleted = null"

const char *const cass_statements[ST_COUNT] = {
    [ST_CHAT] = "SELECT user, character, created, buckets, deleted FROM @chats WHERE chat = ?",
    [ST_CHAT_INSERT] = ("INSERT INTO @chats (chat, user, character, created, month, buckets) VALUES (?, ?, ?, ?, ?, ?)"
                        " IF NOT EXISTS"),
    [ST_CHAT_BUCKET] = "UPDATE @chats SET buckets = buckets + ? WHERE chat = ? IF user != null AND deleted = null",
    [ST_CHAT_DELETE] = "UPDATE @chats SET deleted = ? WHERE chat = ? IF user != null AND deleted = null",
    [ST_CHAT_EMPTY] = "UPDATE @chats SET buckets = null WHERE chat = ? IF deleted != null",
    [ST_STATE] = "SELECT DISTINCT chat, bucket, " STATE " FROM @turns" IN_BUCKET,
    [ST_STATE_SERIAL] = ("UPDATE @turns SET deleted = true" IN_BUCKET
                         " IF change_no = -1 AND head = null AND idx = -1 AND updated = -1 AND base = -1 AND next = -1"
                         " AND deleted = null"),
    [ST_OPEN] = ("UPDATE @turns SET head = ?, idx = ?, change_no = ?, updated = ?, base = ?" IN_BUCKET
                 " IF head = null AND deleted = null"),
    [ST_ADVANCE] = ("UPDATE @turns SET head = ?, idx = ?, change_no = ?, updated = ?" IN_BUCKET
                    " IF head = ? AND change_no = ?" OPEN),
    [ST_CHANGE] = "UPDATE @turns SET change_no = ?" IN_BUCKET " IF change_no = ? AND gone[?] = null" OPEN,
    [ST_CHANGE_GONE] =
        ("UPDATE @turns SET change_no = ?, gone[?] = true" IN_BUCKET " IF change_no = ? AND gone[?] = null" OPEN),
    [ST_CLOSE] = "UPDATE @turns SET next = ?" IN_BUCKET " IF head = ? AND change_no = ?" OPEN,
    [ST_CLOSED] = "UPDATE @turns SET next = ?" IN_BUCKET " IF next = ? AND deleted = null",
    [ST_MARK] = "UPDATE @turns SET deleted = true" IN_BUCKET " IF next = null AND deleted = null",
    [ST_FORGET] = "UPDATE @turns SET deleted = true" IN_BUCKET " IF deleted = null",
    [ST_FORGET_ROWS] = "DELETE FROM @turns" IN_BUCKET " AND turn >= ?",
    [ST_CLAIM] = "INSERT INTO @turns (chat, bucket, turn, part, rev, claimed) VALUES (?, ?, ?, ?, ?, ?) IF NOT EXISTS",
    [ST_CLAIM_FIND] = "SELECT claimed FROM @turns" IN_BUCKETS " AND turn = ? AND part = ?",
    [ST_ROW] = ROW_INSERT,
    [ST_ROW_NEW] = ROW_INSERT " IF NOT EXISTS",
    [ST_ROW_ERASE] = "DELETE sealed FROM @turns" IN_BUCKET " AND turn = ? AND part = ? AND rev = ?",
    [ST_TURN] = "SELECT bucket, " STATE ", " ROW_COLUMNS " FROM @turns" IN_BUCKET " AND turn = ?",
    [ST_TURN_IN] = "SELECT bucket, " STATE ", " ROW_COLUMNS " FROM @turns" IN_BUCKETS " AND turn = ?",
    [ST_TURNS_UP] = "SELECT " ROW_COLUMNS " FROM @turns" IN_BUCKET " AND turn > ? AND turn < ? ORDER BY turn ASC",
    [ST_TURNS_DOWN] = "SELECT " ROW_COLUMNS " FROM @turns" IN_BUCKET " AND turn > ? AND turn < ? ORDER BY turn DESC",
    [ST_TURNS_IN] = "SELECT " ROW_COLUMNS " FROM @turns" IN_BUCKETS " AND turn > ? AND turn < ?",
    [ST_CHANGED] = "SELECT turn, change, base FROM @turns" IN_BUCKET " AND turn > ? AND change > ? ALLOW FILTERING",
    [ST_CHANGED_ROWS] =
        "SELECT " STATE ", " ROW_COLUMNS " FROM @turns" IN_BUCKET " AND turn > ? AND change > ? ALLOW FILTERING",
    [ST_TURN_SET] = "SELECT " ROW_COLUMNS " FROM @turns" IN_BUCKETS " AND turn IN ?",
    [ST_BY_USER] = "SELECT chat FROM @chats_by_user WHERE user = ? AND chat < ?",
    [ST_BY_USER_PUT] = "INSERT INTO @chats_by_user (user, chat, character, created) VALUES (?, ?, ?, ?)",
    [ST_BY_USER_DROP] = "DELETE FROM @chats_by_user WHERE user = ? AND chat = ?",
    [ST_BY_CHARACTER_PUT] = ("INSERT INTO @chats_by_character (character, month, chat, user, created)"
                             " VALUES (?, ?, ?, ?, ?)"),
    [ST_BY_CHARACTER_DROP] = "DELETE FROM @chats_by_character WHERE character = ? AND month = ? AND chat = ?",
    [ST_SELECTED] = "SELECT chat FROM @selected WHERE user = ?",
    [ST_SELECTED_PUT] = "INSERT INTO @selected (user, character, chat) VALUES (?, ?, ?)",
    [ST_SELECTED_DROP] = "DELETE FROM @selected WHERE user = ?",
    [ST_CLIENT] = "SELECT chat, character, created, bucket FROM @clients WHERE user = ? AND client = ?",
    [ST_CLIENT_PUT] = ("INSERT INTO @clients (user, client, chat, character, created, bucket) VALUES (?, ?, ?, ?, ?, ?)"
                       " IF NOT EXISTS"),
    [ST_CLIENT_TAKE] = ("UPDATE @clients SET chat = ?, character = ?, created = ?, bucket = ?"
                        " WHERE user = ? AND client = ? IF chat = ?"),
    [ST_KEY] = "SELECT wrapped, destroyed FROM @keys WHERE owner = ? AND id = ?",
    [ST_KEY_PUT] = "INSERT INTO @keys (owner, id, wrapped) VALUES (?, ?, ?) IF NOT EXISTS",
    [ST_KEY_DESTROY] = "UPDATE @keys SET wrapped = ?, destroyed = true WHERE owner = ? AND id = ? IF destroyed = null",
    [ST_VERSION] = "SELECT version FROM @schema_version WHERE id = 1",
    [ST_SERVER] = "SELECT release_version, cluster_name, toUnixTimestamp(now()) AS now FROM system.local",
};
