#include "clc/store/accounts.hpp"

#include "clc/store/placements.hpp"

namespace educloud::clc::store {

std::optional<Account> find_account(Sql& sql, std::string_view name) {
  const auto row =
      sql.one("SELECT name, admin, password_hash, created_at FROM accounts WHERE name = ?", {name});
  if (!row) return std::nullopt;
  return Account{row->text(0), row->flag(1), row->text(2), row->number(3)};
}

void add_account(Sql& sql, const Account& account) {
  sql.run("INSERT INTO accounts (name, admin, password_hash, created_at) VALUES (?, ?, ?, ?)",
          {account.name, account.admin, account.password_hash, account.created_at});
}

void set_password_hash(Sql& sql, std::string_view name, std::string_view password_hash) {
  sql.run("UPDATE accounts SET password_hash = ? WHERE name = ?", {password_hash, name});
}

void add_token(Sql& sql, std::string_view hash, std::string_view account, std::int64_t now_ms,
               std::int64_t expires_ms) {
  sql.run("INSERT INTO tokens (hash, account, created_at, expires_at) VALUES (?, ?, ?, ?)",
          {hash, account, now_ms, expires_ms});
}

std::optional<Principal> token_owner(Sql& sql, std::string_view hash, std::int64_t now_ms) {
  const auto row = sql.one(
      "SELECT a.name, a.admin FROM tokens t JOIN accounts a ON a.name = t.account WHERE t.hash = ? AND "
      "t.expires_at > ?",
      {hash, now_ms});
  if (!row) return std::nullopt;
  return Principal{row->text(0), row->flag(1)};
}

void remove_token(Sql& sql, std::string_view hash) {
  sql.run("DELETE FROM tokens WHERE hash = ?", {hash});
}

void remove_tokens_of(Sql& sql, std::string_view account) {
  sql.run("DELETE FROM tokens WHERE account = ?", {account});
}

LoginFailures login_failures(Sql& sql, std::string_view account) {
  const auto row =
      sql.one("SELECT failures, last_at, locked_until FROM login_failures WHERE account = ?", {account});
  if (!row) return {};
  return {static_cast<int>(row->number(0)), row->number(1), row->number(2)};
}

void set_login_failures(Sql& sql, std::string_view account, const LoginFailures& failures) {
  sql.run(
      "INSERT OR REPLACE INTO login_failures (account, failures, last_at, locked_until) VALUES (?, ?, ?, ?)",
      {account, failures.failures, failures.last_at, failures.locked_until});
}

void clear_login_failures(Sql& sql, std::string_view account) {
  sql.run("DELETE FROM login_failures WHERE account = ?", {account});
}

void audit(Sql& sql, std::int64_t now_ms, std::string_view account, std::string_view action,
           std::string_view object, std::string_view detail) {
  sql.run("INSERT INTO audit (at, account, action, object, detail) VALUES (?, ?, ?, ?, ?)",
          {now_ms, account, action, object, detail.substr(0, 1000)});
}

void remove_expired(Sql& sql, std::int64_t now_ms) {
  constexpr std::int64_t kDay = 24 * 3'600'000;
  sql.run("DELETE FROM tokens WHERE expires_at <= ?", {now_ms});
  sql.run("DELETE FROM login_failures WHERE last_at < ? AND locked_until < ?", {now_ms - kDay, now_ms});
  sql.run("DELETE FROM inbox WHERE seen_at < ?", {now_ms - kDay});
  sql.run("DELETE FROM tasks WHERE state = 'gone' AND ended_at < ?", {now_ms - 30 * kDay});
  sql.run("DELETE FROM audit WHERE id <= (SELECT MAX(id) FROM audit) - 100000");
  trim_placements(sql);
}

}  // namespace educloud::clc::store
