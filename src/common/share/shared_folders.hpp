#pragma once

#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/share/sftp_mount.hpp"

namespace educloud::share {

/// The folders of walrus that guests share, by their names under space/.
inline constexpr std::array<const char*, 3> kShares{"software", "pub-data", "prv-data"};

/// Where walrus' SFTP server is, and who we are there.
struct SftpServer {
  std::string host;  ///< empty: nothing is mounted
  int port = 8022;
  std::string user = "educloud-files";
  std::filesystem::path key_file, known_hosts_file;
};

/// All three, mounted under one directory and kept so. What else lies in that directory stays visible.
class SharedFolders {
 public:
  struct Options {
    SftpServer server;
    std::filesystem::path space;  ///< <prefix>/space
    std::string daemon;           ///< "nc": in the metric's name
    bool is_for_host = true;      ///< SftpMount::Options
  };

  explicit SharedFolders(Options options);

  void start();
  /// The mounts stay.
  void stop();
  /// A sentence for each folder that does not answer; also tells the metric.
  std::vector<std::string> problems() const;

 private:
  const std::string metric_;
  std::vector<std::unique_ptr<SftpMount>> mounts_;
};

}  // namespace educloud::share
