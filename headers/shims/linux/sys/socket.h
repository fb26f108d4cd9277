/* What the kernel's headers take from a libc's sockets. */
#ifndef VMM_ARCH_SHIM_SYS_SOCKET_H
#define VMM_ARCH_SHIM_SYS_SOCKET_H
typedef unsigned short sa_family_t;
struct sockaddr { sa_family_t sa_family; char sa_data[14]; };
#endif
