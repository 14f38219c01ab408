#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "common/http/message.hpp"
#include "common/transfer/progress.hpp"

namespace educloud::transfer {

/// What a client wants to upload. All ids are checked before anybody sees this.
struct UploadInfo {
  std::string uid;  ///< 32 hex digits; the upload's capability: whoever knows it may write and delete it
  std::string imgid;
  int version = 0;
  std::string node;    ///< of the grant: a host name or kUserNode
  std::string cmdid;   ///< UUIDv7 or empty (then `Admit` may fill it in)
  std::string digest;  ///< SHA-256 hex of the uploaded bytes, or empty
  std::string format;  ///< qcow2, raw, vdi, vmdk, vhdx, or empty (unknown)
  std::string parent;  ///< "<imgid>/<version>" or empty
  std::uint64_t length = 0;
};

enum class UploadState { receiving, processing, done, failed };
std::string_view to_string(UploadState state);

struct UploadStatus {
  UploadInfo info;
  UploadState state = UploadState::receiving;
  std::string prompt;            ///< "receiving", or what the processor said last
  std::uint64_t bytes_done = 0;  ///< of the present state
  std::uint64_t bytes_total = 0;
  std::string receipt;         ///< if done
  std::optional<Error> error;  ///< if failed
};

/// What a processor gets.
struct ProcessInput {
  UploadInfo info;
  std::filesystem::path data;    ///< the received bytes, `info.length` long; removed by the server afterwards
  std::filesystem::path folder;  ///< of this upload; anything else in it is removed with it
  std::string note;              ///< what save_note kept before a crash, or empty
  std::function<Result<>(const std::string&)> save_note;  ///< durable once it returns
  OnProgress progress;
};
/// Turns the received file into a version; returns the receipt. Runs on a worker. It must be idempotent:
/// after a crash it runs again from the beginning. `cancelled` because the server stops: run again at the
/// next start.
using Processor = std::function<Result<std::string>(const ProcessInput&, std::stop_token)>;
/// Decides whether an upload may begin, before anything is written; may fill in cmdid, digest, format.
/// Errors go to the client as they are (conflict, permission_denied, ...).
using Admit = std::function<Result<>(UploadInfo&)>;
/// Told of every change: created, bytes received (at most once a second), processing, done, failed.
/// Called on a server or worker thread, never under a lock; must not block.
using OnUploadChange = std::function<void(const UploadStatus&)>;

struct UploadServerOptions {
  std::filesystem::path folder;                ///< `<prefix>/tmp/uploads`; made if it is not there
  std::string data_key;                        ///< grants are checked with it, and uids made
  std::uint64_t max_bytes = 2ull << 40;        ///< of one upload; told as Tus-Max-Size
  std::uint64_t reserve_bytes = 256ull << 20;  ///< stays free on the disk
  std::size_t max_open = 64;                   ///< uploads not yet done or failed
  int workers = 2;
  std::chrono::seconds expire_after{24 * 3600};  ///< since the last byte, or since done or failed
  Admit admit = {};
  Processor processor;
  OnUploadChange on_change = {};
};

/// Resumable uploads: tus 1.0.0 with creation and termination under /uploads,
/// and `GET /uploads/{uid}` with the state as JSON. State is on disk (`<folder>/<uid>/{data,info.json}`; the
/// length of `data` is the offset), so kill -9 at any moment loses nothing that was acknowledged.
class UploadServer {
 public:
  explicit UploadServer(UploadServerOptions options);
  ~UploadServer();
  UploadServer(const UploadServer&) = delete;
  UploadServer& operator=(const UploadServer&) = delete;

  /// Reads the uploads on disk, continues those that were being processed, starts workers and the expiry
  /// sweep. Errors: the folder cannot be made or read.
  Result<> start();
  /// Stops workers; what they were doing is continued at the next start. Idempotent.
  void stop();

  /// Adds its routes. The router's server must be stopped before this object is destroyed.
  void add_routes(http::Router& router);

  std::vector<UploadStatus> list() const;
  std::optional<UploadStatus> find(const std::string& uid) const;
  std::optional<UploadStatus> find_by_command(const std::string& cmdid) const;
  /// Forgets an upload and all it holds, also in the middle of receiving or processing. False: there is none.
  bool remove(const std::string& uid);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace educloud::transfer
