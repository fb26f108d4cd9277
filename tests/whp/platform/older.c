/*
 * Being an older Windows: VMM_ARCH_WHP_LACKS names what this platform is not to know.
 *
 * The environment variable is a list of hexadecimal numbers, each behind an r for a register or a p
 * for a partition's property, with commas between them: "r80003,p1012". It is read once, of the
 * environment that the process was started with.
 */
#include "platform.h"

static const char VARIABLE[] = "VMM_ARCH_WHP_LACKS=";
enum { MOST = 64, ENVIRONMENT = 1 << 21 };
static struct {
    char kind;
    u32 number;
} lacking[MOST];
static u32 count;
static int known;
static lock reading;

static void parse(const char *list)
{
    while (*list && count < MOST) {
        u32 number = 0;
        char kind = *list++;
        for (; *list && *list != ','; list++)
            number = number << 4 | (u32)(*list <= '9' ? *list - '0' : (*list | 32) - 'a' + 10);
        lacking[count].kind = kind;
        lacking[count++].number = number;
        list += *list == ',';
    }
}

static void read_environment(void)
{
    char *all = map_pages(ENVIRONMENT, -1);
    i64 file = system_call(SYS_open, (i64) "/proc/self/environ", 0, 0, 0, 0, 0), more = 1;
    u64 size = 0;
    while (all && file >= 0 && more > 0 && size < ENVIRONMENT - 1) {
        more = system_call(SYS_read, file, (i64)(all + size), (i64)(ENVIRONMENT - 1 - size), 0, 0, 0);
        size += more > 0 ? (u64)more : 0;
    }
    for (u64 at = 0, same = 0; at < size; at++) { /* a zero ends each variable, and the last one */
        same = all[at] && same < sizeof VARIABLE && VARIABLE[same] == all[at] ? same + 1
               : all[at]                                                     ? sizeof VARIABLE
                                                                             : 0;
        if (same == sizeof VARIABLE - 1)
            parse(all + at + 1);
    }
    if (file >= 0)
        close_file((int)file);
    if (all)
        unmap_pages(all, ENVIRONMENT);
}

int lacks(char kind, u32 number)
{
    acquire(&reading);
    if (!known)
        read_environment();
    known = 1;
    release(&reading);
    for (u32 i = 0; i < count; i++)
        if (lacking[i].kind == kind && lacking[i].number == number)
            return 1;
    return 0;
}
