#include "clc/store/tasks.hpp"

#include "clc/domain/task_rules.hpp"
#include "common/task/table.hpp"

namespace educloud::clc::store {
namespace {

// Text put together at compile time of this file's constants only: never of values.
const std::string kSelect =
    "SELECT id, tid, kind, owner, src, dst, insid, phase, state, progress, bytes_done, bytes_total, prompt, "
    "errormsg, "
    "failed, achieved, cluster, node, source_version, target_version, placement, op, cmdid, command, "
    "op_open, epoch, "
    "attempt, seq, cmd_sent_at, news_at, deadline_at, created_at, updated_at, ended_at, bytes_per_s, lazy, "
    "replace_current, gated_at, resends, leaves_at FROM tasks ";

Task task_of(const Row& row) {
  Task task;
  task.id = row.number(0);
  task.tid = row.text(1);
  task.kind = task_kind(row.text(2));
  task.owner = row.text(3);
  task.src = row.text(4);
  task.dst = row.text(5);
  task.insid = row.text(6);
  const auto phase = task::parse_phase(row.text(7));
  const auto state = task::parse_state(row.text(8));
  if (!phase || !state)
    throw Abort{Error{ErrorCode::corrupt, "task " + task.tid + " has an unknown state", {}}};
  task.state = {*phase, *state};
  task.progress = static_cast<int>(row.number(9));
  task.bytes_done = row.number(10);
  task.bytes_total = row.number(11);
  task.prompt = row.text(12);
  task.errormsg = row.text(13);
  task.failed = row.flag(14);
  task.achieved = row.flag(15);
  task.cluster = row.text(16);
  task.node = row.text(17);
  task.source_version = static_cast<int>(row.number(18));
  task.target_version = static_cast<int>(row.number(19));
  task.placement = row.text(20);
  task.op = row.text(21);
  task.cmdid = row.text(22);
  task.command = row.text(23);
  task.op_open = row.flag(24);
  task.epoch = row.number(25);
  task.attempt = row.number(26);
  task.seq = row.number(27);
  task.cmd_sent_at = row.number(28);
  task.news_at = row.number(29);
  task.deadline_at = row.number(30);
  task.created_at = row.number(31);
  task.updated_at = row.number(32);
  task.ended_at = row.number(33);
  task.bytes_per_s = row.number(34);
  task.lazy = row.flag(35);
  task.replace = row.flag(36);
  task.gated_at = row.number(37);
  task.resends = row.number(38);
  task.leaves_at = row.number(39);
  return task;
}

std::vector<Task> select(Sql& sql, const std::string& query, std::initializer_list<Value> values) {
  std::vector<Task> out;
  for (const auto& row : sql.all(query, values)) out.push_back(task_of(row));
  return out;
}

std::optional<Task> select_one(Sql& sql, const std::string& query, std::initializer_list<Value> values) {
  const auto row = sql.one(query, values);
  return row ? std::optional(task_of(*row)) : std::nullopt;
}

}  // namespace

std::optional<Task> find_task(Sql& sql, std::string_view tid) {
  static const std::string kQuery = kSelect + "WHERE tid = ? ORDER BY state = 'gone', id DESC LIMIT 1";
  return select_one(sql, kQuery, {tid});
}

std::optional<Task> find_task_by_row(Sql& sql, std::int64_t id) {
  static const std::string kQuery = kSelect + "WHERE id = ?";
  return select_one(sql, kQuery, {id});
}

std::optional<Task> open_task(Sql& sql, std::string_view tid) {
  static const std::string kQuery = kSelect + "WHERE tid = ? AND state <> 'gone'";
  return select_one(sql, kQuery, {tid});
}

std::optional<Task> open_task_of_instance(Sql& sql, std::string_view insid) {
  static const std::string kQuery = kSelect + "WHERE insid = ? AND state <> 'gone'";
  return select_one(sql, kQuery, {insid});
}

std::vector<Task> list_tasks(Sql& sql, std::int64_t before, int limit, std::string_view owner, bool open_only,
                             std::string_view insid, std::string_view imgid) {
  static const std::string kQuery =
      kSelect +
      "WHERE (?1 = 0 OR id < ?1) AND (?3 = '' OR owner = ?3) AND (?4 = 0 OR state <> 'gone') "
      "AND (?5 = '' OR insid = ?5) AND (?6 = '' OR src = ?6 OR dst = ?6) ORDER BY id DESC LIMIT ?2";
  return select(sql, kQuery, {before, limit, owner, open_only, insid, imgid});
}

std::vector<Task> open_tasks(Sql& sql) {
  static const std::string kQuery = kSelect + "WHERE state <> 'gone' ORDER BY id";
  return select(sql, kQuery, {});
}

std::vector<Task> open_tasks_of_node(Sql& sql, std::string_view node) {
  static const std::string kQuery = kSelect + "WHERE state <> 'gone' AND node = ? ORDER BY id";
  return select(sql, kQuery, {node});
}

std::vector<Task> open_tasks_of_image(Sql& sql, std::string_view imgid) {
  static const std::string kQuery = kSelect + "WHERE state <> 'gone' AND (src = ?1 OR dst = ?1) ORDER BY id";
  return select(sql, kQuery, {imgid});
}

std::int64_t add_task(Sql& sql, const Task& task) {
  sql.run(
      "INSERT INTO tasks (tid, kind, owner, src, dst, insid, phase, state, progress, bytes_done, "
      "bytes_total, prompt, "
      "errormsg, failed, achieved, cluster, node, source_version, target_version, placement, op, cmdid, "
      "command, "
      "op_open, epoch, attempt, seq, cmd_sent_at, news_at, deadline_at, created_at, updated_at, ended_at) "
      "VALUES "
      "(?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, '', '', 0, 0, '', '', 0, 0, '', '', '', '', 0, 1, 1, -1, 0, 0, 0, "
      "?, ?, 0)",
      {task.tid, to_string(task.kind), task.owner, task.src, task.dst, task.insid,
       to_string(task.state.phase), to_string(task.state.state), task.created_at, task.created_at});
  return sql.last_row_id();
}

void update_task(Sql& sql, const Task& task) {
  sql.run(
      "UPDATE tasks SET phase = ?, state = ?, progress = ?, bytes_done = ?, bytes_total = ?, prompt = ?, "
      "errormsg = ?, "
      "failed = ?, achieved = ?, cluster = ?, node = ?, source_version = ?, target_version = ?, placement = "
      "?, "
      "op = ?, cmdid = ?, command = ?, op_open = ?, epoch = ?, attempt = ?, seq = ?, cmd_sent_at = ?, "
      "news_at = ?, "
      "deadline_at = ?, updated_at = ?, ended_at = ?, bytes_per_s = ?, lazy = ?, replace_current = ?, "
      "gated_at = ?, resends = ?, leaves_at = ? "
      "WHERE id = ?",
      {to_string(task.state.phase),
       to_string(task.state.state),
       task.progress,
       task.bytes_done,
       task.bytes_total,
       task.prompt,
       task.errormsg,
       task.failed,
       task.achieved,
       task.cluster,
       task.node,
       task.source_version,
       task.target_version,
       task.placement,
       task.op,
       task.cmdid,
       task.command,
       task.op_open,
       task.epoch,
       task.attempt,
       task.seq,
       task.cmd_sent_at,
       task.news_at,
       task.deadline_at,
       task.updated_at,
       task.ended_at,
       task.bytes_per_s,
       task.lazy,
       task.replace,
       task.gated_at,
       task.resends,
       task.leaves_at,
       task.id});
}

std::vector<Task> overdue_tasks(Sql& sql, std::int64_t now_ms) {
  // resend_after_ms, in SQL: those that wait longer must not take the places of those that are due.
  static const std::string kQuery = kSelect +
                                    "WHERE state <> 'gone' AND ((op_open = 1 AND MAX(cmd_sent_at, news_at) + "
                                    "MIN(?1 << MIN(resends, 8), ?2) <= ?3) OR (deadline_at > 0 AND "
                                    "deadline_at <= ?3)) ORDER BY id LIMIT 500";
  return select(sql, kQuery, {kResendMs, kLongestResendMs, now_ms});
}

std::vector<Reservation> reservations(Sql& sql) {
  std::vector<Reservation> out;
  for (const auto& row :
       sql.all("SELECT t.node, t.insid, i.memory_mib, i.cpus, t.phase, t.state FROM tasks t "
               "JOIN instances i ON i.insid = t.insid WHERE t.state <> 'gone' AND t.node <> ''")) {
    const auto phase = task::parse_phase(row.text(4));
    const auto state = task::parse_state(row.text(5));
    const bool runs = phase && state && task::holds_capacity({*phase, *state});
    const std::int64_t memory_mib = runs ? row.number(2) : 0, cpus = runs ? row.number(3) : 0;
    const bool is_up = runs && *phase == task::Phase::editing && *state != task::State::booting;
    out.push_back({row.text(0), row.text(1), memory_mib, static_cast<int>(cpus), runs,
                   is_up ? row.text(0) : std::string()});
  }
  for (const auto& row : sql.all(
           "SELECT json_extract(t.command, '$.move.nid'), t.insid, i.memory_mib, i.cpus, t.node FROM tasks t "
           "JOIN instances i ON i.insid = t.insid WHERE t.state <> 'gone' AND t.op = 'instance/migrate' "
           "AND t.op_open = 1")) {
    out.push_back(
        {row.text(0), row.text(1), row.number(2), static_cast<int>(row.number(3)), true, row.text(4)});
  }
  return out;
}

}  // namespace educloud::clc::store
