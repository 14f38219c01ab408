#include "clc/app/cloud_impl.hpp"
#include "clc/app/passwords.hpp"
#include "clc/app/setup.hpp"
#include "common/base/random.hpp"
#include "common/obs/log.hpp"

namespace educloud::clc {
namespace {

constexpr int kFreeFailures = 5;               ///< wrong passwords before waiting begins
constexpr std::int64_t kFirstWaitMs = 30'000;  ///< doubled with each further one
constexpr std::int64_t kLongestWaitMs = 15 * 60'000;
constexpr std::int64_t kForgetMs = 60 * 60'000;  ///< without a further failure
constexpr std::int64_t kFailureRows = 10'000;    ///< names remembered: guessed names must not fill the disk

bool is_account_name(std::string_view name) {
  bool ok = !name.empty() && name.size() <= 32 && name[0] >= 'a' && name[0] <= 'z';
  for (const char c : name) {
    ok = ok && ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-');
  }
  return ok;
}

Result<> check_password(std::string_view password) {
  if (password.size() >= 8 && password.size() <= 128) return {};
  return fail(ErrorCode::invalid_argument, "a password must have 8 to 128 characters", "password");
}

store::LoginFailures one_more(store::LoginFailures failures, std::int64_t now_ms) {
  if (now_ms - failures.last_at > kForgetMs) failures = {};
  ++failures.failures;
  failures.last_at = now_ms;
  const int past = failures.failures - kFreeFailures;
  if (past >= 0)
    failures.locked_until = now_ms + std::min(kLongestWaitMs, kFirstWaitMs << std::min(past, 10));
  return failures;
}

tl::unexpected<Error> wrong_login() {
  return fail(ErrorCode::unauthenticated, "unknown account or wrong password");
}

}  // namespace

Result<Session> Cloud::login(std::string_view account, std::string_view password, std::string_view remote) {
  auto& impl = *impl_;
  if (!is_account_name(account) || password.size() > 128) return wrong_login();
  const auto now_ms = impl.clock.wall_ms();
  struct Known {
    std::optional<Account> account;
    store::LoginFailures failures;
  };
  const auto known = impl.store.read([&](store::Sql& sql) -> Result<Known> {
    return Known{store::find_account(sql, account), store::login_failures(sql, account)};
  });
  if (!known) return fail(known.error());
  if (known->failures.locked_until > now_ms) {
    return fail(ErrorCode::unavailable,
                "too many wrong passwords for this account: wait " +
                    std::to_string((known->failures.locked_until - now_ms) / 1000 + 1) + " s");
  }
  const bool right =
      password_matches(known->account ? known->account->password_hash : nobodys_hash(), password) &&
      known->account.has_value();
  if (!right) {
    auto written = impl.store.write([&](store::Sql& sql) -> Result<> {
      const auto before = store::login_failures(sql, account);
      if (before.failures == 0 && sql.number("SELECT COUNT(*) FROM login_failures") >= kFailureRows)
        return {};
      const auto after = one_more(before, now_ms);
      store::set_login_failures(sql, account, after);
      store::audit(sql, now_ms, account, after.locked_until > now_ms ? "login.locked" : "login.failed",
                   account, remote);
      return {};
    });
    if (!written) return fail(written.error());
    obs::warn("login.failed", {{"account", account}, {"remote", remote}});
    return wrong_login();
  }
  Session session{
      random_hex(32), now_ms + impl.options.session_ms, {known->account->name, known->account->admin}};
  auto written = impl.store.write([&](store::Sql& sql) -> Result<> {
    store::clear_login_failures(sql, account);
    store::add_token(sql, token_hash(session.token), account, now_ms, session.expires_at);
    store::audit(sql, now_ms, account, "login", account, remote);
    return {};
  });
  if (!written) return fail(written.error());
  return session;
}

Result<Principal> Cloud::authenticate(std::string_view token) {
  if (token.size() != 64) return fail(ErrorCode::unauthenticated, "log in first");
  const std::string hash = token_hash(token);
  auto owner = impl_->store.read([&](store::Sql& sql) -> Result<std::optional<Principal>> {
    return store::token_owner(sql, hash, impl_->clock.wall_ms());
  });
  if (!owner) return fail(owner.error());
  if (!*owner) return fail(ErrorCode::unauthenticated, "the session has ended: log in again");
  return **owner;
}

Result<> Cloud::logout(std::string_view token) {
  return impl_->store.write([hash = token_hash(token)](store::Sql& sql) -> Result<> {
    store::remove_token(sql, hash);
    return {};
  });
}

Result<bool> create_account(store::Store& store, const Clock& clock, std::string_view name,
                            std::string_view password, bool admin) {
  if (!is_account_name(name)) {
    return fail(ErrorCode::invalid_argument, "an account name is [a-z][a-z0-9._-]{0,31}", "name");
  }
  if (auto ok = check_password(password); !ok) return fail(ok.error());
  auto hash = hash_password(password);
  if (!hash) return fail(hash.error());
  return store.write([&](store::Sql& sql) -> Result<bool> {
    if (store::find_account(sql, name)) return false;
    store::add_account(sql, {std::string(name), admin, *hash, clock.wall_ms()});
    store::audit(sql, clock.wall_ms(), "setup", "account.create", name, admin ? "admin" : "");
    return true;
  });
}

Result<> set_password(store::Store& store, std::string_view name, std::string_view password) {
  if (auto ok = check_password(password); !ok) return ok;
  auto hash = hash_password(password);
  if (!hash) return fail(hash.error());
  return store.write([&](store::Sql& sql) -> Result<> {
    if (!store::find_account(sql, name))
      return fail(ErrorCode::not_found, "there is no account " + std::string(name));
    store::set_password_hash(sql, name, *hash);
    store::remove_tokens_of(sql, name);
    store::clear_login_failures(sql, name);
    return {};
  });
}

Result<> register_cluster(store::Store& store, std::string_view host) {
  if (auto name = HostName::parse(host); !name) return fail(name.error());
  return store.write([&](store::Sql& sql) -> Result<> {
    store::put_cluster(sql, host);
    return {};
  });
}

Result<> register_node(store::Store& store, std::string_view host, std::string_view cluster) {
  if (auto name = HostName::parse(host); !name) return fail(name.error());
  if (auto name = HostName::parse(cluster); !name) return fail(name.error());
  return store.write([&](store::Sql& sql) -> Result<> {
    if (!sql.one("SELECT host FROM clusters WHERE host = ?", {cluster})) {
      return fail(ErrorCode::not_found,
                  "there is no cluster " + std::string(cluster) + ": register it first");
    }
    store::add_node(sql, host, cluster);
    return {};
  });
}

}  // namespace educloud::clc
