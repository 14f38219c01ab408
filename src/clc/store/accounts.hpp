#pragma once

#include <optional>
#include <string_view>

#include "clc/domain/types.hpp"
#include "clc/store/sql.hpp"

namespace educloud::clc::store {

std::optional<Account> find_account(Sql& sql, std::string_view name);
void add_account(Sql& sql, const Account& account);
void set_password_hash(Sql& sql, std::string_view name, std::string_view password_hash);

/// `hash` is what stands in place of the token.
void add_token(Sql& sql, std::string_view hash, std::string_view account, std::int64_t now_ms,
               std::int64_t expires_ms);
/// The account a token that has not expired belongs to.
std::optional<Principal> token_owner(Sql& sql, std::string_view hash, std::int64_t now_ms);
void remove_token(Sql& sql, std::string_view hash);
void remove_tokens_of(Sql& sql, std::string_view account);

struct LoginFailures {
  int failures = 0;
  std::int64_t last_at = 0, locked_until = 0;
};
LoginFailures login_failures(Sql& sql, std::string_view account);
void set_login_failures(Sql& sql, std::string_view account, const LoginFailures& failures);
void clear_login_failures(Sql& sql, std::string_view account);

void audit(Sql& sql, std::int64_t now_ms, std::string_view account, std::string_view action,
           std::string_view object, std::string_view detail = {});

/// Expired tokens, old lock-outs, inbox entries over a day, ended tasks over 30 days, audit past 100,000
/// rows, decisions past 10,000.
void remove_expired(Sql& sql, std::int64_t now_ms);

}  // namespace educloud::clc::store
