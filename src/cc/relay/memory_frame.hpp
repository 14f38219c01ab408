#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/chunk/frame.hpp"

namespace educloud::cc {

/// A frame that the cache could not take, held in memory. Its bytes count in `budget` while it lives.
inline std::shared_ptr<const std::string> frame_in_memory(
    const chunk::FrameHeader& header, std::span<const char> stored,
    std::shared_ptr<std::atomic<std::uint64_t>> budget) {
  auto text = std::make_unique<std::string>(header.frame_bytes(), '\0');
  chunk::encode_header(header,
                       std::span<char, chunk::kFrameHeaderBytes>(text->data(), chunk::kFrameHeaderBytes));
  std::copy(stored.begin(), stored.end(), text->begin() + chunk::kFrameHeaderBytes);
  *budget += text->size();
  return {text.release(), [budget = std::move(budget)](const std::string* own) {
            *budget -= own->size();
            delete own;
          }};
}

}  // namespace educloud::cc
