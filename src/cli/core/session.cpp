#include "cli/core/session.hpp"

#include <cstdlib>

#include "common/msg/codec.hpp"
#include "common/sys/file.hpp"

namespace educloud::cli {
namespace {

constexpr const char* kApi = "/clc/api/1.0";
constexpr const char* kDefaultUrl = "http://127.0.0.1:8000";
constexpr std::size_t kCredentialsBytes = 16 * 1024;
constexpr std::size_t kListMost = 100'000;
constexpr std::uint64_t kAnswerBytes = 64ull << 20;

struct CredentialsFile {
  std::string url, user, token;
  std::int64_t expires_at = 0;

  static constexpr auto fields() {
    using T = CredentialsFile;
    return std::make_tuple(msg::field("url", &T::url, msg::text(1, 1024)),
                           msg::field("user", &T::user, msg::text(1, 128)),
                           msg::field("token", &T::token, msg::text(1, 1024)),
                           msg::option("expires_at", &T::expires_at, msg::range(0, 9.0e15)));
  }
};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::filesystem::path default_credentials_file() {
  if (const auto file = environment("EDUCLOUD_TOKEN_FILE"); !file.empty()) return file;
  if (const auto config = environment("XDG_CONFIG_HOME"); !config.empty()) {
    return std::filesystem::path(config) / "educloud" / "credentials";
  }
  const auto home = environment("HOME");
  return std::filesystem::path(home.empty() ? "/root" : home) / ".config" / "educloud" / "credentials";
}

Result<Credentials> load_credentials(const std::filesystem::path& file) {
  auto text = sys::read_secret_file(file);
  if (!text && text.error().code == ErrorCode::not_found) {
    return fail(ErrorCode::unauthenticated,
                "not logged in: run `educloud login --url http://HOST:8000 --user NAME`");
  }
  if (!text) return fail(text.error());
  if (text->size() > kCredentialsBytes)
    return fail(ErrorCode::corrupt, file.string() + " is too large: log in again");
  auto parsed = msg::parse<CredentialsFile>(*text);
  if (!parsed) return fail(parsed.error(), file.string() + ", log in again");
  return Credentials{parsed->url, parsed->user, parsed->token, parsed->expires_at};
}

Result<> save_credentials(const std::filesystem::path& file, const Credentials& credentials) {
  if (auto ok = sys::make_directories(std::filesystem::absolute(file).parent_path(), 0700); !ok) return ok;
  const CredentialsFile out{credentials.url, credentials.user, credentials.token, credentials.expires_at};
  return sys::write_file_atomically(file, msg::serialize(out) + "\n", 0600);
}

Result<Session> Session::open_anonymous(const SessionOptions& options) {
  Session session;
  session.url_ = options.url.empty() ? kDefaultUrl : options.url;
  while (!session.url_.empty() && session.url_.back() == '/') session.url_.pop_back();
  auto url = http::Url::parse(session.url_);
  if (!url) return fail(url.error(), "--url " + session.url_);
  session.client_options_.tls_ca_file = options.ca_file;
  session.client_options_.body_limit = kAnswerBytes;
  session.client_ = std::make_unique<http::Client>(*url, session.client_options_);
  return session;
}

Result<Session> Session::open(const SessionOptions& options) {
  auto credentials = load_credentials(options.credentials_file);
  if (!credentials) return fail(credentials.error());
  SessionOptions chosen = options;
  if (chosen.url.empty()) chosen.url = credentials->url;
  while (!chosen.url.empty() && chosen.url.back() == '/') chosen.url.pop_back();
  // A token shown to another server would be a gift to it.
  if (chosen.url != credentials->url) {
    return fail(ErrorCode::unauthenticated, "the stored login is for " + credentials->url + ", not for " +
                                                chosen.url + ": run `educloud login --url " + chosen.url +
                                                "`");
  }
  auto session = open_anonymous(chosen);
  if (session) session->token_ = credentials->token;
  return session;
}

Result<http::ClientResponse> Session::call(const std::string& method, const std::string& path,
                                           std::string body) {
  http::ClientRequest request;
  request.method = method;
  request.target = kApi + path;
  request.headers["Accept"] = "application/json";
  if (!token_.empty()) request.headers["Authorization"] = "Bearer " + token_;
  if (method == "POST" || method == "PATCH") request.headers["Content-Type"] = "application/json";
  request.body = std::move(body);
  auto response = client_->send(request);
  if (!response) return fail(response.error(), url_);
  if (auto ok = response->ok(); !ok) return fail(ok.error());
  return response;
}

Result<nlohmann::json> Session::get(const std::string& path) {
  auto response = call("GET", path, "");
  if (!response) return fail(response.error());
  return response->json();
}

Result<nlohmann::json> Session::post(const std::string& path, const nlohmann::json& body) {
  auto response = call("POST", path, body.dump());
  if (!response) return fail(response.error());
  if (response->body.empty()) return nlohmann::json::object();
  return response->json();
}

Result<nlohmann::json> Session::put(const std::string& path, const nlohmann::json& body) {
  auto response = call("PUT", path, body.dump());
  if (!response) return fail(response.error());
  return response->json();
}

Result<nlohmann::json> Session::patch(const std::string& path, const nlohmann::json& body) {
  auto response = call("PATCH", path, body.dump());
  if (!response) return fail(response.error());
  return response->json();
}

Result<nlohmann::json> Session::remove(const std::string& path) {
  auto response = call("DELETE", path, "");
  if (!response) return fail(response.error());
  if (response->body.empty()) return nlohmann::json::object();
  return response->json();
}

Result<std::string> Session::get_raw(const std::string& path) {
  auto response = call("GET", path, "");
  if (!response) return fail(response.error());
  return std::move(response->body);
}

Result<nlohmann::json> Session::list(const std::string& path) {
  auto items = nlohmann::json::array();
  std::string cursor;
  const char joint = path.find('?') == std::string::npos ? '?' : '&';
  while (items.size() < kListMost) {
    auto page =
        get(path + joint + "limit=500" + (cursor.empty() ? "" : "&cursor=" + http::url_encode(cursor)));
    if (!page) return page;
    const auto at = page->find("items");
    if (at == page->end() || !at->is_array())
      return fail(ErrorCode::internal, url_ + path + ": the answer has no items");
    for (auto& one : *at) items.push_back(std::move(one));
    const auto next = page->find("next");
    if (next == page->end() || !next->is_string() || next->get_ref<const std::string&>() == cursor) break;
    cursor = next->get<std::string>();
  }
  return items;
}

}  // namespace educloud::cli
