#include "clc/store/placements.hpp"

namespace educloud::clc::store {
namespace {

std::optional<Decision> decision_of(const std::optional<Row>& row) {
  if (!row) return std::nullopt;
  auto decision = parse_decision(row->text(4));
  if (!decision) throw Abort{decision.error()};
  decision->tid = row->text(0);
  decision->owner = row->text(1);
  decision->at = row->number(2);
  decision->chosen = row->text(3);
  return std::move(*decision);
}

std::vector<std::int64_t> numbers(const std::vector<Row>& rows) {
  std::vector<std::int64_t> out;
  for (const auto& row : rows) out.push_back(row.number(0));
  return out;
}

}  // namespace

void put_placement(Sql& sql, const Decision& decision) {
  sql.run(
      "INSERT INTO placements (tid, owner, at, chosen, decision) VALUES (?, ?, ?, ?, ?) ON CONFLICT (tid) DO "
      "UPDATE SET owner = excluded.owner, at = excluded.at, chosen = excluded.chosen, "
      "decision = excluded.decision WHERE excluded.at >= at",
      {decision.tid, decision.owner, decision.at, decision.chosen, serialize(decision)});
}

std::optional<Decision> find_placement(Sql& sql, std::string_view tid) {
  return decision_of(sql.one("SELECT tid, owner, at, chosen, decision FROM placements WHERE tid = ?", {tid}));
}

std::optional<Decision> find_placement_of_instance(Sql& sql, std::string_view insid) {
  // "IMG........:IMG........:" is 24 characters.
  return decision_of(sql.one(
      "SELECT tid, owner, at, chosen, decision FROM placements WHERE substr(tid, 25) = ? ORDER BY at DESC "
      "LIMIT 1",
      {insid}));
}

void trim_placements(Sql& sql) {
  sql.run("DELETE FROM placements WHERE at < (SELECT at FROM placements ORDER BY at DESC LIMIT 1 OFFSET ?)",
          {kPlacementRows - 1});
}

std::vector<std::int64_t> boots_on(Sql& sql, std::string_view node) {
  // The command tells when it was made; cmd_sent_at moves when it is sent again.
  return numbers(
      sql.all("SELECT json_extract(command, '$.ts') FROM tasks WHERE node = ? AND state <> 'gone' AND "
              "op = 'image/run' AND op_open = 1",
              {node}));
}

std::vector<std::int64_t> waiting_at_gate(Sql& sql, std::string_view node) {
  return numbers(
      sql.all("SELECT id FROM tasks WHERE node = ? AND state <> 'gone' AND gated_at > 0 ORDER BY "
              "insid NOT LIKE 'VS%', gated_at, id",
              {node}));
}

std::vector<std::string> gated_nodes(Sql& sql) {
  std::vector<std::string> out;
  for (const auto& row :
       sql.all("SELECT DISTINCT node FROM tasks WHERE state <> 'gone' AND gated_at > 0 ORDER BY node")) {
    out.push_back(row.text(0));
  }
  return out;
}

QueuePlace queue_place(Sql& sql, const Task& task) {
  const auto row = sql.one(
      "SELECT COUNT(*), COALESCE(SUM((insid NOT LIKE 'VS%', gated_at, id) <= (?2, ?3, ?4)), 0) FROM tasks "
      "WHERE node = ?1 AND state <> 'gone' AND gated_at > 0",
      {task.node, task.insid.starts_with("VS") ? 0 : 1, task.gated_at, task.id});
  return {static_cast<int>(row->number(1)), static_cast<int>(row->number(0))};
}

std::vector<std::int64_t> to_drain(Sql& sql, std::int64_t now_ms) {
  // CROSS JOIN: from the few nodes to their open tasks, never through all tasks that ever were.
  // One whose image/run is on its way is waited for: it boots in a moment, and is stopped then.
  return numbers(
      sql.all("SELECT t.id FROM nodes n CROSS JOIN tasks t ON t.node = n.host WHERE n.state = 'drained' AND "
              "t.state <> 'gone' AND t.kind = 'run' AND "
              "((t.state IN ('booting', 'running', 'paused') AND NOT (t.op IN ('image/stop', "
              "'instance/migrate') AND t.op_open = 1) AND t.leaves_at <= ?) OR "
              "(t.phase = 'preparing' AND t.failed = 0 AND t.op = 'image/prepare')) "
              "ORDER BY t.id LIMIT 500",
              {now_ms}));
}

}  // namespace educloud::clc::store
