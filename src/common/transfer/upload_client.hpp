#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <stop_token>
#include <string>

#include "common/http/client.hpp"
#include "common/transfer/progress.hpp"

namespace educloud::transfer {

/// A file to upload as one version of an image.
struct UploadRequest {
  http::Url base;          ///< of the receiver: cc for a node, walrus for a cc or a user
  std::string grant = {};  ///< query string of a PUT grant for version_path(imgid, version)
  std::string imgid = {};
  int version = 0;
  std::filesystem::path file = {};
  std::string cmdid = {};        ///< of the submit; a user leaves it empty (walrus knows the import's)
  std::string digest = {};       ///< SHA-256 hex of the file; may be empty for a user
  std::string format = "qcow2";  ///< qcow2, raw, vdi, vmdk, vhdx; "" lets walrus look at the header
  std::string parent = {};       ///< receipt.hpp make_parent; or empty
  std::chrono::seconds timeout{24 * 3600};  ///< for everything
  std::chrono::seconds stall_timeout{120};  ///< without any progress, retries included
  std::uint64_t piece_bytes = 16ull << 20;  ///< of one PATCH
  http::ClientOptions client = {};
};

/// Uploads by tus 1.0, continues at the receiver's offset after any interruption (also of this process:
/// the same request finds the same upload), waits until the receiver has processed it. Blocking; for a
/// worker thread. Returns the receipt (receipt.hpp).
/// Errors: what the receiver says (conflict: version published with other bytes; exhausted: its disk is full;
/// permission_denied; corrupt; invalid_argument: image refused), timeout, cancelled, unavailable, not_found
/// (the file).
Result<std::string> upload_version(const UploadRequest& request, const OnProgress& on_progress = {},
                                   std::stop_token stop = {});

/// Asks the receiver to forget the upload (tus termination). Not there any more is success.
Result<> abandon_upload(const UploadRequest& request, std::stop_token stop = {});

}  // namespace educloud::transfer
