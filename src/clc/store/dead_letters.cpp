#include "clc/store/dead_letters.hpp"

namespace educloud::clc::store {
namespace {

DeadLetter letter_of(const Row& row) {
  DeadLetter out;
  out.id = row.number(0);
  out.at = row.number(1);
  out.queue = row.text(2);
  out.reason = row.text(3);
  out.cause = row.text(4);
  out.exchange = row.text(5);
  out.routing_key = row.text(6);
  out.sender = row.text(7);
  out.retried_at = row.number(8);
  out.bytes = row.number(9);
  return out;
}

}  // namespace

std::int64_t add_dead_letter(Sql& sql, const DeadLetter& letter) {
  sql.run(
      "INSERT INTO dead_letters (at, queue, reason, cause, exchange, routing_key, sender, body) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, CAST(? AS BLOB))",
      {letter.at, letter.queue, letter.reason, letter.cause, letter.exchange, letter.routing_key,
       letter.sender, letter.body});
  const auto id = sql.last_row_id();
  sql.run("DELETE FROM dead_letters WHERE id <= ?", {id - kDeadLetters});
  // Ids have no gaps, so each passes this mark once.
  sql.run("UPDATE dead_letters SET body = substr(body, 1, ?2) WHERE id = ?1 AND length(body) > ?2",
          {id - kWholeBodies, kBodyBeginning});
  return id;
}

std::vector<DeadLetter> list_dead_letters(Sql& sql, std::int64_t before, int limit) {
  std::vector<DeadLetter> out;
  for (const auto& row :
       sql.all("SELECT id, at, queue, reason, cause, exchange, routing_key, sender, retried_at, length(body) "
               "FROM dead_letters WHERE ?1 = 0 OR id < ?1 ORDER BY id DESC LIMIT ?2",
               {before, limit}))
    out.push_back(letter_of(row));
  return out;
}

std::optional<DeadLetter> find_dead_letter(Sql& sql, std::int64_t id) {
  const auto row = sql.one(
      "SELECT id, at, queue, reason, cause, exchange, routing_key, sender, retried_at, length(body), body "
      "FROM dead_letters WHERE id = ?",
      {id});
  if (!row) return std::nullopt;
  auto out = letter_of(*row);
  out.body = row->text(10);
  return out;
}

void set_dead_letter_retried(Sql& sql, std::int64_t id, std::int64_t now_ms) {
  sql.run("UPDATE dead_letters SET retried_at = ? WHERE id = ?", {now_ms, id});
}

bool remove_dead_letter(Sql& sql, std::int64_t id) {
  return sql.run("DELETE FROM dead_letters WHERE id = ?", {id}) > 0;
}

int remove_dead_letters(Sql& sql) {
  return sql.run("DELETE FROM dead_letters");
}

std::int64_t count_dead_letters(Sql& sql) {
  return sql.number("SELECT COUNT(*) FROM dead_letters");
}

}  // namespace educloud::clc::store
