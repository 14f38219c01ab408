#include "clc/store/stored.hpp"
#include "clc/store/tasks.hpp"

namespace educloud::clc::store {
namespace {

const std::string kSelect =
    "SELECT insid, name, owner, imgid, version, vmtype, memory_mib, cpus, cluster_pin, node_pin, deleting, "
    "created_at, id, limits, first_boot, disk_cluster, folder_protocol, autostart "
    "FROM instances ";

Instance instance_of(const Row& row) {
  Instance one;
  one.insid = row.text(0);
  one.name = row.text(1);
  one.owner = row.text(2);
  one.imgid = row.text(3);
  one.version = static_cast<int>(row.number(4));
  one.vmtype = row.text(5);
  one.memory_mib = row.number(6);
  one.cpus = static_cast<int>(row.number(7));
  one.cluster_pin = row.text(8);
  one.node_pin = row.text(9);
  one.deleting = row.flag(10);
  one.created_at = row.number(11);
  one.limits = stored<msg::Limits>(row.text(13));
  one.first_boot = stored<msg::FirstBoot>(row.text(14));
  one.disk_cluster = row.text(15);
  one.folder_protocol = row.text(16);
  one.autostart = row.flag(17);
  return one;
}

}  // namespace

std::optional<Instance> find_instance(Sql& sql, std::string_view insid) {
  static const std::string kQuery = kSelect + "WHERE insid = ?";
  const auto row = sql.one(kQuery, {insid});
  return row ? std::optional(instance_of(*row)) : std::nullopt;
}

std::vector<Listed<Instance>> list_instances(Sql& sql, std::int64_t after, int limit,
                                             std::string_view owner) {
  static const std::string kQuery =
      kSelect + "WHERE id > ?1 AND (?3 = '' OR owner = ?3) AND insid NOT LIKE 'TMP%' ORDER BY id LIMIT ?2";
  std::vector<Listed<Instance>> out;
  for (const auto& row : sql.all(kQuery, {after, limit, owner}))
    out.push_back({row.number(12), instance_of(row)});
  return out;
}

std::vector<Instance> instances_of_image(Sql& sql, std::string_view imgid) {
  static const std::string kQuery = kSelect + "WHERE imgid = ? ORDER BY id";
  std::vector<Instance> out;
  for (const auto& row : sql.all(kQuery, {imgid})) out.push_back(instance_of(row));
  return out;
}

void add_instance(Sql& sql, const Instance& one) {
  sql.run(
      "INSERT INTO instances (insid, name, owner, imgid, version, vmtype, memory_mib, cpus, cluster_pin, "
      "node_pin, created_at, limits, first_boot, disk_cluster, folder_protocol, autostart) VALUES (?, ?, ?, "
      "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      {one.insid, one.name, one.owner, one.imgid, one.version, one.vmtype, one.memory_mib, one.cpus,
       one.cluster_pin, one.node_pin, one.created_at, to_column(one.limits), to_column(one.first_boot),
       one.disk_cluster, one.folder_protocol, one.autostart});
}

void set_disk_cluster(Sql& sql, std::string_view insid, std::string_view cluster) {
  sql.run("UPDATE instances SET disk_cluster = ? WHERE insid = ?", {cluster, insid});
}

void set_instance_limits(Sql& sql, std::string_view insid, const msg::Limits& limits) {
  sql.run("UPDATE instances SET limits = ? WHERE insid = ?", {to_column(limits), insid});
}

void update_instance(Sql& sql, const Instance& one) {
  sql.run(
      "UPDATE instances SET name = ?, version = ?, vmtype = ?, memory_mib = ?, cpus = ?, cluster_pin = ?, "
      "node_pin = ?, autostart = ?, folder_protocol = ? WHERE insid = ?",
      {one.name, one.version, one.vmtype, one.memory_mib, one.cpus, one.cluster_pin, one.node_pin,
       one.autostart, one.folder_protocol, one.insid});
}

void set_instance_deleting(Sql& sql, std::string_view insid) {
  sql.run("UPDATE instances SET deleting = 1 WHERE insid = ?", {insid});
}

void remove_instance(Sql& sql, std::string_view insid) {
  free_ports(sql, insid);
  sql.run("DELETE FROM instances WHERE insid = ?", {insid});
}

void set_display_password(Sql& sql, std::string_view insid, std::string_view password) {
  sql.run("UPDATE instances SET display_password = ? WHERE insid = ?", {password, insid});
}

std::string display_password(Sql& sql, std::string_view insid) {
  const auto row = sql.one("SELECT display_password FROM instances WHERE insid = ?", {insid});
  return row ? row->text(0) : "";
}

int take_port(Sql& sql, std::string_view node, std::string_view kind, std::string_view insid, int first,
              int last) {
  if (const auto row = sql.one("SELECT node, port FROM ports WHERE insid = ? AND kind = ?", {insid, kind})) {
    const int port = static_cast<int>(row->number(1));
    if (row->text(0) == node && port >= first && port <= last) return port;
    sql.run("DELETE FROM ports WHERE insid = ? AND kind = ?", {insid, kind});
  }
  int free = first;
  for (const auto& row :
       sql.all("SELECT port FROM ports WHERE node = ? AND port BETWEEN ? AND ? ORDER BY port",
               {node, first, last})) {
    if (row.number(0) != free) break;
    ++free;
  }
  if (free > last) return 0;
  sql.run("INSERT INTO ports (node, port, kind, insid) VALUES (?, ?, ?, ?)", {node, free, kind, insid});
  return free;
}

int port_of(Sql& sql, std::string_view insid, std::string_view kind) {
  const auto row = sql.one("SELECT port FROM ports WHERE insid = ? AND kind = ?", {insid, kind});
  return row ? static_cast<int>(row->number(0)) : 0;
}

void hold_port(Sql& sql, std::string_view node, std::string_view kind, std::string_view insid, int port) {
  sql.run("DELETE FROM ports WHERE (node = ? AND port = ?) OR (insid = ? AND kind = ?)",
          {node, port, insid, kind});
  sql.run("INSERT INTO ports (node, port, kind, insid) VALUES (?, ?, ?, ?)", {node, port, kind, insid});
}

void free_ports(Sql& sql, std::string_view insid) {
  sql.run("DELETE FROM ports WHERE insid = ?", {insid});
}

void free_port(Sql& sql, std::string_view insid, std::string_view kind) {
  sql.run("DELETE FROM ports WHERE insid = ? AND kind = ?", {insid, kind});
}

std::vector<std::string> unowned_ports(Sql& sql) {
  std::vector<std::string> out;
  for (const auto& row : sql.all("SELECT DISTINCT insid FROM ports p WHERE NOT EXISTS "
                                 "(SELECT 1 FROM tasks t WHERE t.insid = p.insid AND t.state <> 'gone')")) {
    out.push_back(row.text(0));
  }
  return out;
}

void add_outbox(Sql& sql, const OutboxRow& row, std::int64_t now_ms) {
  sql.run(
      "INSERT INTO outbox (exchange, routing_key, body, msgid, deadline_at, created_at) VALUES (?, ?, ?, ?, "
      "?, ?)",
      {row.exchange, row.routing_key, row.body, row.msgid, row.deadline_at, now_ms});
}

std::vector<OutboxRow> outbox_after(Sql& sql, std::int64_t id, int limit) {
  std::vector<OutboxRow> out;
  for (const auto& row :
       sql.all("SELECT id, exchange, routing_key, body, msgid, deadline_at FROM outbox WHERE id > ? "
               "ORDER BY id LIMIT ?",
               {id, limit})) {
    out.push_back({row.number(0), row.text(1), row.text(2), row.text(3), row.text(4), row.number(5)});
  }
  return out;
}

void remove_outbox(Sql& sql, std::int64_t id) {
  sql.run("DELETE FROM outbox WHERE id = ?", {id});
}

bool is_in_outbox(Sql& sql, std::string_view cmdid) {
  return sql.number("SELECT EXISTS (SELECT 1 FROM outbox WHERE instr(body, ?) > 0)", {cmdid}) != 0;
}

std::int64_t outbox_size(Sql& sql) {
  return sql.number("SELECT COUNT(*) FROM outbox");
}

bool consume(Sql& sql, std::string_view sender, std::string_view msgid, std::int64_t now_ms) {
  return sql.run("INSERT OR IGNORE INTO inbox (sender, msgid, seen_at) VALUES (?, ?, ?)",
                 {sender, msgid, now_ms}) > 0;
}

}  // namespace educloud::clc::store
