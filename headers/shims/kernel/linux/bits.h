/* The kernel's own checks that its arguments are in order. */
#define BIT(bit) (1UL << (bit))
#define BIT_ULL(bit) (1ULL << (bit))
#define GENMASK(high, low) ((~0UL << (low)) & (~0UL >> (63 - (high))))
#define GENMASK_ULL(high, low) ((~0ULL << (low)) & (~0ULL >> (63 - (high))))

/* uapi/linux/bits.h */
#define __GENMASK(high, low) GENMASK(high, low)
