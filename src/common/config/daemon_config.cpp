#include "common/config/daemon_config.hpp"

namespace educloud::config {

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
  reader.text("broker.host", out.broker.host, 1, 255);
  reader.integer("broker.port", out.broker.port, 1, 65535);
  reader.text("broker.vhost", out.broker.vhost, 1, 255);
  reader.require("broker.user");
  reader.text("broker.user", out.broker.user, 1, 64);
  reader.require("broker.password_file");
  reader.path("broker.password_file", out.broker.password_file);
  reader.text("broker.tls_ca_file", out.broker.tls_ca_file);
  reader.text("tls.certificate_file", out.tls.certificate_file);
  reader.text("tls.key_file", out.tls.key_file);
}

}  // namespace educloud::config
