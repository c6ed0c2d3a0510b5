/* What C has no operator for: how numbers of few bits are rounded and read, and what single precision does with none. */

static float as_float(uint32_t bits) { cell c = {0}; c.u32 = bits; return c.f32; }
static uint32_t bits_of(float value) { cell c = {0}; c.f32 = value; return c.u32; }
static float flush(float a) { return fabsf(a) < 0x1p-126f ? copysignf(0.0f, a) : a; }
static float canonical(float a) { return a == a ? a : as_float(0x7fffffffu); } /* the one that is no number */
static float low(uint64_t pair) { return as_float((uint32_t)pair); }
static float high(uint64_t pair) { return as_float((uint32_t)(pair >> 32)); }
static uint64_t pair(float lower, float upper) { return bits_of(lower) | (uint64_t)bits_of(upper) << 32; }

static float fma_f32(float a, float b, float c) { return fmaf(a, b, c); }
static double fma_f64(double a, double b, double c) { return fma(a, b, c); }
static float sqrt_f32(float a) { return sqrtf(a); }
static double sqrt_f64(double a) { return sqrt(a); }

/* A number rather than none; -0 is less than 0. */
#define EXTREME(name, type, precedes) \
    static type name(type a, type b) { \
        if (a != a || b != b) return a != a ? b : a; \
        if (a == b) return !!signbit(a) == (-1 precedes 1) ? a : b; \
        return a precedes b ? a : b; \
    }
EXTREME(min_f32, float, <)
EXTREME(max_f32, float, >)
EXTREME(min_f64, double, <)
EXTREME(max_f64, double, >)

static float from_bf16(uint16_t a) { return as_float((uint32_t)a << 16); }

static uint16_t to_bf16(float a) {
    const uint32_t bits = bits_of(a);
    return a != a ? 0x7fff : (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_f16(uint16_t a) {
    const int exponent = a >> 10 & 31, fraction = a & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
                     : exponent ? ldexpf(fraction + 1024, exponent - 25) : ldexpf(fraction, -24);
    return a & 0x8000 ? -size : size;
}

static uint16_t to_f16(double a) {
    const uint16_t sign = signbit(a) ? 0x8000 : 0;
    int exponent;
    if (a != a) return 0x7fff;
    if (fabs(a) >= 65520) return sign | 0x7c00;
    if (a == 0) return sign;
    frexp(a, &exponent);
    if (exponent < -13) exponent = -13;                            /* subnormal */
    const int digits = (int)rint(ldexp(fabs(a), 11 - exponent));   /* of 11 bits; 2048 carries into the exponent */
    return sign | (uint16_t)((exponent + 13) * 1024 + digits);
}

static uint32_t permute(uint32_t a, uint32_t b, uint32_t choice) {
    const uint64_t bytes = a | (uint64_t)b << 32;
    uint32_t made = 0;
    for (int k = 0; k < 4; k++) {
        const int chosen = choice >> 4 * k & 15;
        uint32_t byte = bytes >> 8 * (chosen & 7) & 255;
        if (chosen & 8) byte = byte & 128 ? 255 : 0;               /* its sign, eight times */
        made |= byte << 8 * k;
    }
    return made;
}

static uint32_t extract(uint32_t a, uint32_t position, uint32_t length) {
    position &= 255, length &= 255;
    return position < 32 ? a >> position & (length < 32 ? (1u << length) - 1 : 0xffffffffu) : 0;
}
