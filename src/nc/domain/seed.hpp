#pragma once

#include <string>

#include "common/base/ids.hpp"
#include "common/msg/command.hpp"

namespace educloud::nc {

/// A disk that tells a guest who it is, for cloud-init's NoCloud: 512 KiB, FAT12 without partitions, label
/// CIDATA, with the files meta-data and user-data. The same input gives the same bytes. It holds the
/// password's hash: for a file of mode 0600, never for a log. Source: cloudinit.readthedocs.io, "NoCloud";
/// Microsoft's FAT specification, version 1.03.
std::string seed_disk(const InstanceId& insid, const msg::FirstBoot& first_boot);

/// The files' contents. JSON is YAML, so no word of a user can become a key.
std::string seed_meta_data(const InstanceId& insid, const msg::FirstBoot& first_boot);
std::string seed_user_data(const msg::FirstBoot& first_boot);

}  // namespace educloud::nc
