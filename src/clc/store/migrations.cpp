#include "clc/store/migrations.hpp"

#include <array>

namespace educloud::clc::store {
namespace {

constexpr std::string_view kAccounts = R"sql(
CREATE TABLE accounts (
  name TEXT PRIMARY KEY, admin INTEGER NOT NULL, password_hash TEXT NOT NULL, created_at INTEGER NOT NULL) STRICT;
-- only the hash of a token: whoever reads the database cannot log in with it
CREATE TABLE tokens (
  hash TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts(name) ON DELETE CASCADE,
  created_at INTEGER NOT NULL, expires_at INTEGER NOT NULL) STRICT;
CREATE INDEX tokens_expiry ON tokens(expires_at);
CREATE TABLE login_failures (
  account TEXT PRIMARY KEY, failures INTEGER NOT NULL, last_at INTEGER NOT NULL, locked_until INTEGER NOT NULL) STRICT;
CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, account TEXT NOT NULL, action TEXT NOT NULL,
  object TEXT NOT NULL, detail TEXT NOT NULL) STRICT;
)sql";

constexpr std::string_view kInventory = R"sql(
CREATE TABLE clusters (host TEXT PRIMARY KEY) STRICT;
CREATE TABLE nodes (
  host TEXT PRIMARY KEY, cluster TEXT NOT NULL REFERENCES clusters(host), enabled INTEGER NOT NULL DEFAULT 1) STRICT;
CREATE TABLE vmtypes (name TEXT PRIMARY KEY, memory_mib INTEGER NOT NULL, cpus INTEGER NOT NULL) STRICT;
INSERT INTO vmtypes VALUES ('vssmall', 4096, 1), ('vsmedium', 8192, 1), ('vslarge', 16384, 1),
                           ('vdsmall', 4096, 1), ('vdmedium', 8192, 1), ('vdlarge', 8192, 2);
CREATE TABLE ostypes (name TEXT PRIMARY KEY, disk_type TEXT NOT NULL, nic_type TEXT NOT NULL) STRICT;
INSERT INTO ostypes VALUES ('linux', 'virtio', 'virtio'), ('windows', 'sata', 'e1000'), ('other', 'sata', 'e1000');
CREATE TABLE images (
  id INTEGER PRIMARY KEY AUTOINCREMENT, imgid TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL REFERENCES accounts(name), ostype TEXT NOT NULL REFERENCES ostypes(name), usage TEXT NOT NULL,
  description TEXT NOT NULL, current_version INTEGER NOT NULL DEFAULT 0, next_version INTEGER NOT NULL DEFAULT 1,
  deleting INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL) STRICT;
CREATE TABLE versions (
  imgid TEXT NOT NULL REFERENCES images(imgid) ON DELETE CASCADE, version INTEGER NOT NULL, digest TEXT NOT NULL,
  size_bytes INTEGER NOT NULL, virtual_size_bytes INTEGER NOT NULL, format TEXT NOT NULL, parent INTEGER NOT NULL,
  pruning INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL, receipt TEXT NOT NULL,
  PRIMARY KEY (imgid, version)) STRICT;
CREATE TABLE instances (
  id INTEGER PRIMARY KEY AUTOINCREMENT, insid TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
  owner TEXT NOT NULL REFERENCES accounts(name), imgid TEXT NOT NULL REFERENCES images(imgid),
  version INTEGER NOT NULL, vmtype TEXT NOT NULL, memory_mib INTEGER NOT NULL, cpus INTEGER NOT NULL,
  cluster_pin TEXT NOT NULL, node_pin TEXT NOT NULL, deleting INTEGER NOT NULL DEFAULT 0,
  display_password TEXT NOT NULL DEFAULT '', created_at INTEGER NOT NULL) STRICT;
CREATE INDEX instances_image ON instances(imgid);
CREATE INDEX instances_owner ON instances(owner);
-- a port belongs to one instance of one node; usage is counted from here, never stored
CREATE TABLE ports (
  node TEXT NOT NULL, port INTEGER NOT NULL, kind TEXT NOT NULL, insid TEXT NOT NULL,
  PRIMARY KEY (node, port), UNIQUE (insid, kind)) STRICT;
)sql";

constexpr std::string_view kTasks = R"sql(
CREATE TABLE tasks (
  id INTEGER PRIMARY KEY AUTOINCREMENT, tid TEXT NOT NULL, kind TEXT NOT NULL, owner TEXT NOT NULL,
  src TEXT NOT NULL, dst TEXT NOT NULL, insid TEXT NOT NULL, phase TEXT NOT NULL, state TEXT NOT NULL,
  progress INTEGER NOT NULL, bytes_done INTEGER NOT NULL, bytes_total INTEGER NOT NULL,
  prompt TEXT NOT NULL, errormsg TEXT NOT NULL, failed INTEGER NOT NULL, achieved INTEGER NOT NULL,
  cluster TEXT NOT NULL, node TEXT NOT NULL, source_version INTEGER NOT NULL, target_version INTEGER NOT NULL,
  placement TEXT NOT NULL, op TEXT NOT NULL, cmdid TEXT NOT NULL, command TEXT NOT NULL, op_open INTEGER NOT NULL,
  epoch INTEGER NOT NULL, attempt INTEGER NOT NULL, seq INTEGER NOT NULL, cmd_sent_at INTEGER NOT NULL,
  news_at INTEGER NOT NULL, deadline_at INTEGER NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX tasks_open ON tasks(tid) WHERE state <> 'gone';
CREATE UNIQUE INDEX tasks_open_instance ON tasks(insid) WHERE state <> 'gone';
CREATE INDEX tasks_tid ON tasks(tid);
CREATE INDEX tasks_ended ON tasks(ended_at) WHERE state = 'gone';
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, exchange TEXT NOT NULL, routing_key TEXT NOT NULL, body TEXT NOT NULL,
  msgid TEXT NOT NULL, deadline_at INTEGER NOT NULL, created_at INTEGER NOT NULL) STRICT;
CREATE TABLE inbox (
  sender TEXT NOT NULL, msgid TEXT NOT NULL, seen_at INTEGER NOT NULL, PRIMARY KEY (sender, msgid)) STRICT, WITHOUT ROWID;
CREATE INDEX inbox_seen ON inbox(seen_at);
)sql";

constexpr std::string_view kImagePath = R"sql(
ALTER TABLE tasks ADD COLUMN bytes_per_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN lazy INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tasks ADD COLUMN replace_current INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr std::string_view kScheduler = R"sql(
ALTER TABLE nodes ADD COLUMN state TEXT NOT NULL DEFAULT 'enabled';
UPDATE nodes SET state = 'no_new' WHERE enabled = 0;
ALTER TABLE nodes DROP COLUMN enabled;
-- waits for its node's boot gate since; 0: does not
ALTER TABLE tasks ADD COLUMN gated_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX tasks_node ON tasks(node) WHERE state <> 'gone';
-- the last decision about a task, made or refused: JSON as the API shows it
CREATE TABLE placements (
  tid TEXT PRIMARY KEY, owner TEXT NOT NULL, at INTEGER NOT NULL, chosen TEXT NOT NULL, decision TEXT NOT NULL) STRICT;
CREATE INDEX placements_at ON placements(at);
)sql";

constexpr std::string_view kDeadLetters = R"sql(
CREATE TABLE dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, queue TEXT NOT NULL, reason TEXT NOT NULL,
  cause TEXT NOT NULL, exchange TEXT NOT NULL, routing_key TEXT NOT NULL, sender TEXT NOT NULL,
  body BLOB NOT NULL, retried_at INTEGER NOT NULL DEFAULT 0) STRICT;
)sql";

constexpr std::string_view kLeases = R"sql(
-- rises when the node is declared lost: what it does under an older one is refused
ALTER TABLE nodes ADD COLUMN lease_epoch INTEGER NOT NULL DEFAULT 1;
ALTER TABLE nodes ADD COLUMN lost_at INTEGER NOT NULL DEFAULT 0;
-- how often the present command was sent again: each time it waits longer
ALTER TABLE tasks ADD COLUMN resends INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr std::string_view kServers = R"sql(
-- JSON of msg::Limits and msg::FirstBoot
ALTER TABLE vmtypes ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE instances ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
ALTER TABLE instances ADD COLUMN first_boot TEXT NOT NULL DEFAULT '{}';
ALTER TABLE ostypes ADD COLUMN sound_type TEXT NOT NULL DEFAULT 'none';
-- a server image's database disk is an image of its own (usage 'database', listed nowhere), whose versions go with
-- the image's; empty and 0: none
ALTER TABLE images ADD COLUMN database_imgid TEXT NOT NULL DEFAULT '';
ALTER TABLE versions ADD COLUMN database_version INTEGER NOT NULL DEFAULT 0;
-- how its nodes reach database disks: iscsi, copy or nbd
ALTER TABLE clusters ADD COLUMN database_mode TEXT NOT NULL DEFAULT 'iscsi';
CREATE TABLE snapshots (
  id INTEGER PRIMARY KEY AUTOINCREMENT, snapid TEXT NOT NULL UNIQUE, insid TEXT NOT NULL REFERENCES instances(insid) ON DELETE CASCADE,
  name TEXT NOT NULL, state TEXT NOT NULL, with_memory INTEGER NOT NULL, node TEXT NOT NULL, error TEXT NOT NULL DEFAULT '',
  created_at INTEGER NOT NULL) STRICT;
CREATE INDEX snapshots_instance ON snapshots(insid);
)sql";

constexpr std::string_view kDatabaseDisks = R"sql(
-- of the disk that is made for a server image's data
ALTER TABLE images ADD COLUMN database_gib INTEGER NOT NULL DEFAULT 0;
CREATE INDEX images_database ON images(database_imgid) WHERE database_imgid <> '';
-- where a server's database disk lies: from then on it runs in that cluster only
ALTER TABLE instances ADD COLUMN disk_cluster TEXT NOT NULL DEFAULT '';
-- how shared folders reach a guest: virtiofs or smb; of an instance, empty: as its OS type says
ALTER TABLE ostypes ADD COLUMN folder_protocol TEXT NOT NULL DEFAULT 'virtiofs';
UPDATE ostypes SET folder_protocol = 'smb' WHERE name IN ('windows', 'other');
ALTER TABLE instances ADD COLUMN folder_protocol TEXT NOT NULL DEFAULT '';
-- 1: when its node comes back after a reboot, it is started again
ALTER TABLE instances ADD COLUMN autostart INTEGER NOT NULL DEFAULT 0;
-- as the node told last: rises with each reboot of its host
ALTER TABLE nodes ADD COLUMN booted_at INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr std::string_view kDrain = R"sql(
-- when its VM is, or was, stopped because its node is drained; 0: it is not
ALTER TABLE tasks ADD COLUMN leaves_at INTEGER NOT NULL DEFAULT 0;
)sql";

constexpr std::array kMigrations{Migration{1, "accounts", kAccounts},
                                 Migration{2, "inventory", kInventory},
                                 Migration{3, "tasks", kTasks},
                                 Migration{4, "image path", kImagePath},
                                 Migration{5, "scheduler", kScheduler},
                                 Migration{6, "dead letters", kDeadLetters},
                                 Migration{7, "leases", kLeases},
                                 Migration{8, "servers", kServers},
                                 Migration{9, "database disks", kDatabaseDisks},
                                 Migration{10, "drain", kDrain}};

constexpr bool numbered() {
  for (std::size_t i = 0; i < kMigrations.size(); ++i) {
    if (kMigrations[i].version != static_cast<int>(i) + 1) return false;
  }
  return true;
}
static_assert(numbered(), "migrations are numbered 1, 2, 3 ... without a gap");

}  // namespace

std::span<const Migration> migrations() {
  return kMigrations;
}

}  // namespace educloud::clc::store
