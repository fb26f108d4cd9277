#pragma once
#define _In_
#define _In_opt_
#define _In_reads_bytes_(size)
#define _In_range_(lb, ub)
#define _Out_writes_bytes_to_(size, count)
#define _Outptr_result_maybenull_
#define _Inout_
#define _Field_size_bytes_(size)
#define _When_(expr, annos)
#define _Must_inspect_result_
