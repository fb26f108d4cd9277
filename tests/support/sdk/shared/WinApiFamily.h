#pragma once
#define WINAPI_PARTITION_DESKTOP 1
#define WINAPI_FAMILY_PARTITION(Partitions) (Partitions)
