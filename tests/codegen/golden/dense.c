int32_t enx_dense(const int8_t *restrict x, const int8_t *restrict w, const int32_t *restrict bias, const float *restrict mult, int8_t *restrict y, int32_t begin, int32_t end) {
  for (int32_t i = begin; i < end; ++i) {
    int32_t acc_ptr[8];
    for (int32_t j = 0; j < 8; ++j) {
      for (int32_t k = 0; k < 3; ++k) {
        if (k == 0) {
          acc_ptr[j] = bias[j];
        }
        acc_ptr[j] = (acc_ptr[j] + (((int32_t)x[((i * 3) + k)]) * ((int32_t)w[((k * 8) + j)])));
      }
    }
    for (int32_t j_1 = 0; j_1 < 8; ++j_1) {
      float v_ = ((float)acc_ptr[j_1]) * mult[j_1];
      float v__1 = (-128.0f);
      float v__2 = (v_) > (v__1) ? (v_) : (v__1);
      float v__3 = 127.0f;
      y[((i * 8) + j_1)] = ((int8_t)(bits_of_float_i32((((v__2) < (v__3) ? (v__2) : (v__3)) + 12582912.0f)) - 1262485504));
    }
  }
  return 0;
}
