#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "common/base/result.hpp"
#include "common/http/client.hpp"
#include "common/transfer/upload_client.hpp"

namespace educloud::cli {

/// Where the file of an import goes, from what the API says ({url, query, cmdid, format}): the server's
/// answer is checked, because file and grant are sent to the address it names. Pure. Errors: internal.
Result<transfer::UploadRequest> parse_upload_target(const nlohmann::json& target);

}  // namespace educloud::cli
