// Exists only to compile pch.hpp once.
