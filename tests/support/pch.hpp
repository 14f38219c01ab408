// What every test needs: the project's header and GoogleTest, which takes longest to read.
#pragma once

#include "../../cmake/pch.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
