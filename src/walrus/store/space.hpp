#pragma once

#include <filesystem>
#include <string>

#include "common/base/result.hpp"

namespace educloud::walrus {

/// Makes the folders that guests share, space/{software,pub-data,prv-data} under `prefix`, and gives them to
/// `user` where we are root and there is such a user. space/ itself stays ours and closed to writers: sshd
/// locks its users into no other kind of directory. What is there stays as it is.
Result<> make_space(const std::filesystem::path& prefix, const std::string& user);

}  // namespace educloud::walrus
