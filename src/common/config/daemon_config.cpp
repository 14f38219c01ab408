#include "common/config/daemon_config.hpp"

namespace educloud::config {

void read_broker(Reader& reader, const std::string& table, BrokerConfig& out) {
  reader.text(table + ".host", out.host, 1, 255);
  reader.integer(table + ".port", out.port, 1, 65535);
  reader.text(table + ".vhost", out.vhost, 1, 255);
  reader.text(table + ".user", out.user, 1, 64);
  reader.path(table + ".password_file", out.password_file);
  reader.text(table + ".tls_ca_file", out.tls_ca_file);
}

void read_common(Reader& reader, DaemonConfig& out) {
  reader.require("host");
  reader.host_name("host", out.host);
  reader.path("prefix", out.prefix);
  reader.path("state_dir", out.state_dir);
  reader.choice("log_level", out.log_level, "debug|info|warn|error");
  reader.text("log_file", out.log_file);
  reader.text("listen", out.listen, 1, 64);
  reader.integer("port", out.port, 0, 65535);
  reader.text("advertise", out.advertise, 0, 64);
  reader.require("broker.user");
  reader.require("broker.password_file");
  read_broker(reader, "broker", out.broker);
  reader.text("tls.certificate_file", out.tls.certificate_file);
  reader.text("tls.key_file", out.tls.key_file);
}

}  // namespace educloud::config
