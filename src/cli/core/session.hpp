#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "common/http/client.hpp"

namespace educloud::cli {

/// What the command line and the environment say about the way to the cloud.
struct SessionOptions {
  std::string url;                         ///< --url, EDUCLOUD_URL; empty: the one of the last login
  std::string ca_file;                     ///< --ca: certificate authority for https
  std::filesystem::path credentials_file;  ///< EDUCLOUD_TOKEN_FILE, else ~/.config/educloud/credentials
};

/// Of the last login, kept in a file of mode 0600.
struct Credentials {
  std::string url;
  std::string user;
  std::string token;
  std::int64_t expires_at = 0;  ///< unix milliseconds
};

/// EDUCLOUD_TOKEN_FILE, else $XDG_CONFIG_HOME/educloud/credentials, else $HOME/.config/educloud/credentials.
std::filesystem::path default_credentials_file();
Result<Credentials> load_credentials(const std::filesystem::path& file);
Result<> save_credentials(const std::filesystem::path& file, const Credentials& credentials);

/// The cloud's API for one user. Every call ends within the HTTP client's time limits.
class Session {
 public:
  /// Errors: unauthenticated if no login is stored (say so), invalid_argument (URL).
  static Result<Session> open(const SessionOptions& options);
  /// For `login`: without a token.
  static Result<Session> open_anonymous(const SessionOptions& options);

  Result<nlohmann::json> get(const std::string& path);
  Result<nlohmann::json> post(const std::string& path, const nlohmann::json& body = nlohmann::json::object());
  Result<nlohmann::json> put(const std::string& path, const nlohmann::json& body);
  Result<nlohmann::json> patch(const std::string& path, const nlohmann::json& body);
  Result<nlohmann::json> remove(const std::string& path);
  /// The body as it is (console log, screenshot).
  Result<std::string> get_raw(const std::string& path);
  /// All pages of a list; at most 100,000 entries.
  Result<nlohmann::json> list(const std::string& path);

  const std::string& url() const { return url_; }
  const http::ClientOptions& client_options() const { return client_options_; }

 private:
  Result<http::ClientResponse> call(const std::string& method, const std::string& path, std::string body);
  std::string url_;
  std::string token_;
  http::ClientOptions client_options_;
  std::unique_ptr<http::Client> client_;
};

}  // namespace educloud::cli
