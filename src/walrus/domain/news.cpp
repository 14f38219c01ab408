#include "walrus/domain/news.hpp"

#include <algorithm>

namespace educloud::walrus {
namespace {

constexpr task::TaskState kInit{task::Phase::submitting, task::State::init};
constexpr task::TaskState kUploading{task::Phase::submitting, task::State::uploading};
constexpr task::TaskState kDone{task::Phase::submitting, task::State::done};

}  // namespace

int percent(std::uint64_t done, std::uint64_t total) {
  if (total == 0) return 0;
  return static_cast<int>(100.0L * static_cast<long double>(std::min(done, total)) /
                          static_cast<long double>(total));
}

News import_news(Stage stage, const std::string& prompt, std::uint64_t bytes_done,
                 std::uint64_t bytes_total) {
  News news;
  news.at = kUploading;
  news.progress = percent(bytes_done, bytes_total);
  news.bytes_done = bytes_done;
  news.bytes_total = bytes_total;
  switch (stage) {
    case Stage::waiting: news.prompt = "waiting for the upload"; break;
    case Stage::receiving: news.prompt = "uploading"; break;
    case Stage::processing:
    case Stage::published:
    case Stage::failed: news.prompt = prompt; break;
  }
  return news;
}

News success_news(std::string prompt, std::string receipt) {
  News news;
  news.event = task::Event::submitted;
  news.at = kDone;
  news.final = true;
  news.progress = 100;
  news.prompt = std::move(prompt);
  news.receipt = std::move(receipt);
  return news;
}

News failure_news(Error error) {
  News news;
  news.event = task::Event::failed;
  news.at = kInit;
  news.final = true;
  news.error = std::move(error);
  return news;
}

News deleted_news() {
  News news;
  news.event = task::Event::deleted;
  news.at = kDone;
  news.final = true;
  news.progress = 100;
  news.prompt = "removed";
  return news;
}

}  // namespace educloud::walrus
