#include "common/share/shared_folders.hpp"

#include "common/obs/metrics.hpp"

namespace educloud::share {

SharedFolders::SharedFolders(Options options)
    : metric_("educloud_" + options.daemon + "_folder_answers_bool") {
  const auto& server = options.server;
  if (server.host.empty()) return;
  for (const char* share : kShares) {
    SftpMount::Options mount;
    mount.host = server.host;
    mount.port = server.port;
    mount.user = server.user;
    mount.folder = std::string("/") + share;
    mount.at = options.space / share;
    mount.key_file = server.key_file;
    mount.known_hosts_file = server.known_hosts_file;
    mount.is_for_host = options.is_for_host;
    mounts_.push_back(std::make_unique<SftpMount>(std::move(mount)));
  }
}

void SharedFolders::start() {
  for (auto& mount : mounts_) mount->start();
}

void SharedFolders::stop() {
  for (auto& mount : mounts_) mount->stop();
}

std::vector<std::string> SharedFolders::problems() const {
  std::vector<std::string> all;
  for (const auto& mount : mounts_) {
    const auto problem = mount->problem();
    const auto name = mount->at().filename().string();
    obs::metrics().gauge(metric_, "1: the shared folder answered at the last look", problem.empty() ? 1 : 0,
                         {{"folder", name}});
    if (!problem.empty()) all.push_back("folder space/" + name + ": " + problem);
  }
  return all;
}

}  // namespace educloud::share
