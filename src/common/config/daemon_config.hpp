#pragma once

#include <filesystem>
#include <string>

#include "common/config/config.hpp"

namespace educloud::config {

/// How to reach the broker ([broker] in every daemon's file).
struct BrokerConfig {
  std::string host = "127.0.0.1";
  int port = 5672;
  std::string vhost = "/";
  std::string user;  ///< for instance nc-nc1
  std::filesystem::path password_file;
  std::string tls_ca_file;  ///< set: TLS

  bool operator==(const BrokerConfig&) const = default;
};

/// Certificate of the daemon's own HTTP server ([tls]); both empty: plain HTTP.
struct TlsConfig {
  std::string certificate_file;
  std::string key_file;
};

/// The keys every daemon's file has.
struct DaemonConfig {
  std::string host;  ///< this host's name in the cloud, HostName
  std::filesystem::path prefix = "/storage";
  std::filesystem::path state_dir;
  std::string log_level = "info";
  std::string log_file;            ///< empty: the journal (stderr) only
  std::string listen = "0.0.0.0";  ///< address its HTTP server binds
  int port = 0;                    ///< and its port
  std::string advertise;           ///< address by which others reach it; empty: the first global one
  BrokerConfig broker;
  TlsConfig tls;
};

/// Reads the keys of a broker's table, for instance "broker", into `out`, whose present values are the
/// defaults.
void read_broker(Reader& reader, const std::string& table, BrokerConfig& out);

/// Reads the common keys into `out`, whose present values are the defaults.
void read_common(Reader& reader, DaemonConfig& out);

}  // namespace educloud::config
