#include "common/transfer/chunk_request.hpp"
#include "common/transfer/chunk_routes_impl.hpp"

namespace educloud::transfer {
namespace {

constexpr std::size_t kReserve = 256 * 1024;

/// The body of chunks:store: each frame goes to the sink when it is complete.
class StoreSink : public http::BodySink {
 public:
  StoreSink(std::shared_ptr<ChunkRoutes::Impl> impl, http::Request request, ChunkCaller caller)
      : impl_(std::move(impl)),
        request_(std::move(request)),
        caller_(std::move(caller)),
        reader_([this](const chunk::FrameHeader& header, std::span<const char> stored) {
          return impl_->sink->store(caller_, header, stored);
        }) {}
  Result<> write(std::span<const char> data) override { return reader_.feed(data); }
  http::Response finish() override {
    if (auto whole = reader_.finish(); !whole) return refuse(whole.error());
    return impl_->serve_stored(request_, caller_);
  }

 private:
  std::shared_ptr<ChunkRoutes::Impl> impl_;
  http::Request request_;
  ChunkCaller caller_;
  chunk::FrameReader reader_;
};

/// The manifest of a PUT, which is not held before its grant was checked.
class ManifestSink : public http::BodySink {
 public:
  ManifestSink(std::shared_ptr<ChunkRoutes::Impl> impl, http::Request request, ChunkCaller caller,
               ChunkSink::Publish publish)
      : impl_(std::move(impl)),
        request_(std::move(request)),
        caller_(std::move(caller)),
        publish_(std::move(publish)) {
    publish_.manifest.reserve(std::min<std::size_t>(request_.content_length, kReserve));
  }
  Result<> write(std::span<const char> data) override {
    publish_.manifest.append(data.data(), data.size());
    return {};
  }
  http::Response finish() override {
    if (auto disk = chunk::Manifest::decode(publish_.manifest); !disk) return refuse(disk.error());
    return impl_->serve_publish(request_, caller_, std::move(publish_));
  }

 private:
  std::shared_ptr<ChunkRoutes::Impl> impl_;
  http::Request request_;
  ChunkCaller caller_;
  ChunkSink::Publish publish_;
};

}  // namespace

http::Response ChunkRoutes::Impl::serve_missing(const http::Request& request) {
  auto caller = check(request, "PUT");
  if (!caller) return refuse(caller.error());
  auto ids = chunk::decode_ids(request.body, kMaxIds);
  if (!ids) return refuse(ids.error());
  return later(request, *caller, {}, [this, ids = std::move(*ids)](Answering& job) {
    auto missing = sink->missing(job.caller, ids);
    if (!missing) return job.stream->answer(refuse(missing.error()));
    if (missing->size() != ids.size()) {
      return job.stream->answer(refuse({ErrorCode::internal, "the store answered about other chunks"}));
    }
    job.stream->answer(http::json_response({{"missing", encode_bitmap(*missing)}}));
  });
}

http::Response ChunkRoutes::Impl::serve_stored(const http::Request& request, const ChunkCaller& caller) {
  return later(request, caller, {}, [this](Answering& job) {
    if (auto ok = sink->stored(job.caller); !ok) return job.stream->answer(refuse(ok.error()));
    http::Response response;
    response.status = 204;
    job.stream->answer(std::move(response));
  });
}

http::Response ChunkRoutes::Impl::serve_publish(const http::Request& request, const ChunkCaller& caller,
                                                ChunkSink::Publish publish) {
  return later(request, caller, {}, [this, publish = std::move(publish)](Answering& job) {
    auto receipt = sink->publish(job.caller, publish, job.stop);
    if (!receipt) return job.stream->answer(refuse(receipt.error()));
    job.stream->answer(http::json_response({{"receipt", *receipt}}, 201));
  });
}

void ChunkRoutes::Impl::add_write_routes(http::Router& router) {
  const std::string base(kVersionPattern);
  auto self = shared_from_this();
  using Sink = Result<std::unique_ptr<http::BodySink>>;
  router.add({.method = "POST",
              .pattern = base + "/chunks:missing",
              .handler = [self](const http::Request& request) { return self->serve_missing(request); },
              .body_limit = kMaxIds * chunk::ChunkId::kBytes});
  router.add({.method = "POST",
              .pattern = base + "/chunks:store",
              .handler = {},
              .stream = [self](const http::Request& request) -> Sink {
                auto caller = self->check(request, "PUT");
                if (!caller) return fail(caller.error());
                return std::make_unique<StoreSink>(self, request, std::move(*caller));
              },
              .body_limit = kMaxStoreBytes});
  router.add({.method = "PUT",
              .pattern = base,
              .handler = {},
              .stream = [self](const http::Request& request) -> Sink {
                auto caller = self->check(request, "PUT");
                if (!caller) return fail(caller.error());
                auto publish = read_publish(request);
                if (!publish) return fail(publish.error());
                return std::make_unique<ManifestSink>(self, request, std::move(*caller), std::move(*publish));
              },
              .body_limit = chunk::kMaxManifestBytes});
}

}  // namespace educloud::transfer
