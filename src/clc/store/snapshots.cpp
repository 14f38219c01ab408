#include "clc/store/snapshots.hpp"

namespace educloud::clc::store {
namespace {

const std::string kSelect =
    "SELECT snapid, insid, name, state, with_memory, node, error, created_at FROM snapshots ";

Snapshot snapshot_of(const Row& row) {
  Snapshot one;
  one.snapid = row.text(0);
  one.insid = row.text(1);
  one.name = row.text(2);
  one.state = row.text(3);
  one.with_memory = row.flag(4);
  one.node = row.text(5);
  one.error = row.text(6);
  one.created_at = row.number(7);
  return one;
}

}  // namespace

std::vector<Snapshot> list_snapshots(Sql& sql, std::string_view insid) {
  static const std::string kQuery = kSelect + "WHERE insid = ? ORDER BY id";
  std::vector<Snapshot> out;
  for (const auto& row : sql.all(kQuery, {insid})) out.push_back(snapshot_of(row));
  return out;
}

std::optional<Snapshot> find_snapshot(Sql& sql, std::string_view insid, std::string_view snapid) {
  static const std::string kQuery = kSelect + "WHERE insid = ? AND snapid = ?";
  const auto row = sql.one(kQuery, {insid, snapid});
  return row ? std::optional(snapshot_of(*row)) : std::nullopt;
}

bool is_snapshot(Sql& sql, std::string_view snapid) {
  return sql.number("SELECT EXISTS (SELECT 1 FROM snapshots WHERE snapid = ?)", {snapid}) != 0;
}

int count_snapshots(Sql& sql, std::string_view insid) {
  return static_cast<int>(sql.number("SELECT COUNT(*) FROM snapshots WHERE insid = ?", {insid}));
}

void add_snapshot(Sql& sql, const Snapshot& one) {
  sql.run(
      "INSERT INTO snapshots (snapid, insid, name, state, with_memory, node, error, created_at) VALUES (?, "
      "?, ?, ?, ?, ?, ?, ?)",
      {one.snapid, one.insid, one.name, one.state, one.with_memory, one.node, one.error, one.created_at});
}

void update_snapshot(Sql& sql, const Snapshot& one) {
  sql.run("UPDATE snapshots SET state = ?, error = ? WHERE snapid = ?", {one.state, one.error, one.snapid});
}

void remove_snapshot(Sql& sql, std::string_view snapid) {
  sql.run("DELETE FROM snapshots WHERE snapid = ?", {snapid});
}

void remove_snapshots(Sql& sql, std::string_view insid) {
  sql.run("DELETE FROM snapshots WHERE insid = ?", {insid});
}

}  // namespace educloud::clc::store
