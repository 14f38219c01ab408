#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "common/base/ids.hpp"
#include "common/http/client.hpp"
#include "common/msg/command.hpp"

namespace educloud::nc {

struct MoveLinkOptions {
  bool tls = false;  ///< nodes serve HTTPS
  std::string tls_ca_file = {};
  std::optional<unsigned> socket_group = {};  ///< QEMU's, so that it may use our sockets
};

/// What a VM's present node says to the one that takes it, and the tunnels to there: `/migrations/<insid>`,
/// see MoveDesk. One thread at a time; every call ends within seconds unless it says otherwise.
class MoveLink {
 public:
  static constexpr std::string_view kProtocol = "educloud-move";

  MoveLink(const MoveLinkOptions& options, InstanceId insid, const msg::Move& to);
  ~MoveLink() { close(); }
  MoveLink(const MoveLink&) = delete;
  MoveLink& operator=(const MoveLink&) = delete;

  /// Asks until all is ready there: an image may have to arrive first. Errors: those of the other node,
  /// cancelled.
  Result<> prepare(const msg::Command& command,
                   const std::function<void(std::uint64_t done, std::uint64_t total)>& tell,
                   const std::stop_token& stop);
  /// Who connects to `socket`, made by this, speaks to the socket of the same purpose there ("memory",
  /// "disks").
  Result<> open_channel(const std::filesystem::path& socket, std::string_view purpose);
  /// From now on until close(), so that the other node does not take us for dead. Waits for nothing.
  void show_life();
  /// The VM goes on there. Errors: not_found (it is not there, for good), conflict; anything else: not known.
  Result<> take_over(const std::stop_token& stop);
  /// It does not come. Success: nothing of it is there, for good.
  Result<> drop();
  /// Cuts the channels, and shows no life any more. Idempotent.
  void close();

 private:
  http::Client client() const;
  std::string target(std::string_view what) const;

  const MoveLinkOptions options_;
  const InstanceId insid_;
  http::Url url_;
  const std::string grant_;
  std::vector<std::jthread> channels_;
  std::jthread life_;
};

}  // namespace educloud::nc
