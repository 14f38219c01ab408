#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "common/sys/process.hpp"
#include "support/temp_dir.hpp"

namespace educloud::test {

/// A port of the loopback that was free just now.
inline int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  const bool bound = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
                     ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  ::close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

/// QEMU's own iSCSI initiator, as a guest's disk uses it.
class Initiator {
 public:
  Initiator(int port, std::string iqn, std::string user, const std::string& secret)
      : portal_("127.0.0.1:" + std::to_string(port)), iqn_(std::move(iqn)), user_(std::move(user)) {
    dir_.write("secret", secret);
  }

  /// argv of qemu-io with the disk open and `commands` run on it.
  std::vector<std::string> argv(const std::vector<std::string>& commands) const {
    std::vector<std::string> out{"qemu-io", "--object", "secret,id=s,file=" + (dir_ / "secret").string()};
    for (const auto& one : commands) out.insert(out.end(), {"-c", one});
    out.insert(out.end(), {"--image-opts", "driver=iscsi,transport=tcp,portal=" + portal_ + ",target=" +
                                               iqn_ + ",lun=1,user=" + user_ + ",password-secret=s"});
    return out;
  }
  /// Errors: what qemu-io says; its pattern checks count.
  Result<std::string> io(const std::vector<std::string>& commands) const {
    auto ran = sys::run({.argv = argv(commands), .timeout = std::chrono::seconds{60}});
    if (!ran) return fail(ran.error());
    const auto text = ran->out + ran->err;
    if (ran->exit_code != 0 || text.find("Pattern verification failed") != std::string::npos) {
      return fail(ErrorCode::internal, text);
    }
    return text;
  }

 private:
  testing::TempDir dir_;
  std::string portal_, iqn_, user_;
};

}  // namespace educloud::test
