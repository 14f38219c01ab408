#pragma once

#include <string_view>
#include <vector>

#include "clc/domain/types.hpp"
#include "common/base/result.hpp"
#include "common/msg/command.hpp"

/// Which disks and shared folders a VM has, and as which drive. Pure. The file of a disk is named as
/// CONTRACT.md names it; where it really lies is its node's affair.
///   flow           c                         d                                  e                    f
///   desktop run    image, thrown away        folder prv-data/<owner>            folder pub-data
///   server run     image, thrown away        database, kept                                          folder
///   software desktop edited image or its copy, kept   scratch disk                       folder software
///   server edited  image or its copy, kept   database or its copy, kept         scratch disk         folder
///   software
namespace educloud::clc {

/// True if an instance of that id is defined once and run many times: VD, VS. The others end with their task.
bool outlives_its_task(std::string_view insid);
/// True if `task` runs a server, or edits an image with `usage`, so that its VM has a database disk.
bool has_database_disk(const Task& task, std::string_view usage);

/// c first. `usage`: the image's.
std::vector<msg::Disk> disks_of(const Task& task, std::string_view usage);

/// `owner`: of the VM; of an edited image only an administrator's guest may write to `software`.
/// Errors: invalid_argument (a name of an account that is no name of a folder).
Result<std::vector<msg::Folder>> folders_of(const Task& task, std::string_view usage, const Account& owner);

}  // namespace educloud::clc
