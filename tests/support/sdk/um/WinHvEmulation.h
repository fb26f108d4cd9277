#pragma once
#include <WinHvPlatform.h>
