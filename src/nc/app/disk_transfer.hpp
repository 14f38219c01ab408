#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>

#include "common/http/client.hpp"
#include "nc/app/image_tools.hpp"

namespace educloud::nc {

/// Copies of a database disk between this node and its cc (cc/disks/disk_routes.hpp), piece by piece, so that
/// what the network loses is sent again and nothing else. Errors: conflict (the copy does not count any more:
/// another node has the disk), unavailable (nothing moved for `patience`), cancelled, and of the disk.
class DiskTransfer {
 public:
  struct Options {
    http::Url cc;
    http::ClientOptions client;
    std::string path;   ///< "/disks/<insid>/<epoch>"
    std::string grant;  ///< query string
    std::string copy;
    std::chrono::milliseconds patience{};
  };
  explicit DiskTransfer(Options options);

  /// Makes `file`, sparse, 0600: seen only when it is whole and durable.
  Result<> fetch(const std::filesystem::path& file, std::uint64_t data_bytes, const OnCopied& progress,
                 const std::stop_token& stop);
  /// The cc's disk is what `file` is when it returns. `give` names this sending: with the same name one that
  /// was interrupted goes on.
  Result<> give_back(const std::filesystem::path& file, const std::string& give, const OnCopied& progress,
                     const std::stop_token& stop);

 private:
  struct Sending;
  Result<http::ClientResponse> insist(const http::ClientRequest& request, const std::stop_token& stop);
  Result<http::ClientResponse> insist_until_done(const http::ClientRequest& request,
                                                 const std::function<void()>& tell,
                                                 const std::stop_token& stop);
  Result<> send_blocks(Sending& sending, const OnCopied& progress, const std::stop_token& stop);

  const Options options_;
  http::Client client_;
};

}  // namespace educloud::nc
