#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "common/image/version_store.hpp"
#include "common/inbox/inbox.hpp"
#include "common/transfer/upload_server.hpp"
#include "walrus/domain/commands.hpp"
#include "walrus/domain/news.hpp"
#include "walrus/store/blank.hpp"
#include "walrus/store/importer.hpp"
#include "walrus/store/publish.hpp"

namespace educloud::walrus {

/// Carries out commands and tells clc what becomes of them. Commands come from one thread at a time, news
/// of uploads from any. Keeps nothing that the inbox, the uploads and the store do not have on disk.
class Desk {
 public:
  struct Parts {
    image::VersionStore& store;
    inbox::Inbox& inbox;
    Importer& importer;
    const Publisher& publisher;
    std::function<void()> on_removed;  ///< versions are gone, so chunks may be
    BlankDisks& blanks;
  };
  Desk(Parts parts, std::string data_key)
      : store_(parts.store),
        inbox_(parts.inbox),
        importer_(parts.importer),
        publisher_(parts.publisher),
        on_removed_(std::move(parts.on_removed)),
        blanks_(parts.blanks),
        data_key_(std::move(data_key)) {}

  /// The uploads this desk answers for; before anything else is called.
  void attach(transfer::UploadServer& uploads) { uploads_ = &uploads; }

  /// For UploadServerOptions.
  Result<> admit(transfer::UploadInfo& info);
  Result<std::string> process(const transfer::ProcessInput& input, std::stop_token stop);
  void on_upload(const transfer::UploadStatus& status);

  /// Knows again which imports wait, before uploads begin to report. Then, once they do: the commands that
  /// a killed process did not finish.
  void restore_expectations();
  void resume();

  /// One delivered command; settles it.
  void handle(const bus::Delivery& delivery);

 private:
  using PlaceKey = std::pair<std::string, int>;
  struct Expected {
    std::string tid, cmdid;
  };

  void execute(const Order& order);
  void begin_import(const Order& order);
  void make_blank(const Order& order);
  void use(const Order& order);
  void prune(const Order& order);
  void remove_image(const Order& order);
  void forget(const Order& order);
  void report(const std::string& tid, const std::string& cmdid, News news);
  void end(const Order& order, const Result<>& result, std::string prompt);
  std::optional<Expected> expected(const std::string& imgid, int version) const;
  bool is_import_over(const std::string& imgid, int version) const;
  void count_bytes(const transfer::UploadStatus& status);

  image::VersionStore& store_;
  inbox::Inbox& inbox_;
  Importer& importer_;
  const Publisher& publisher_;
  const std::function<void()> on_removed_;
  BlankDisks& blanks_;
  const std::string data_key_;
  transfer::UploadServer* uploads_ = nullptr;
  mutable std::mutex mutex_;
  std::map<PlaceKey, Expected> expected_;          ///< imports that wait for a user's upload or its end
  std::map<std::string, std::uint64_t> received_;  ///< bytes counted so far, by upload
};

}  // namespace educloud::walrus
