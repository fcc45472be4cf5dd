/*
 * A network as an ONNX file (opset 13, IR version 7), for programs that serve it: standard
 * operators only, float32, a batch of any size. The input is an example as the data have it (the
 * description's mean and std are the first nodes); the output is what the network's last layer
 * gives.
 *
 * Written by hand: a protobuf message is a row of tagged fields, and of ONNX some thirty of them
 * are needed. Field numbers are those of onnx.proto (github.com/onnx/onnx).
 */
#ifndef FL_NN_ONNX_H
#define FL_NN_ONNX_H

#include "common/nn/spec.h"
#include "common/nn/tensors.h"

struct fl_onnx {
    const struct fl_spec *spec;       /* checked */
    const struct fl_tensors *tensors; /* the network's, theta's */
    const float *theta;
    uint32_t channels; /* of mean and std: 0, 1 or the input's */
    const float *mean, *std;
    const char *name;           /* of the graph */
    const struct fl_meta *meta; /* become metadata_props */
    size_t meta_count;
};

/* *ret is freed by fl_free. -FL_R_CAPABILITY: a layer that has no ONNX form; -FL_R_LIMIT: beyond
 * the 2 GiB a protobuf may have; -FL_R_NOMEM. */
int fl_onnx_write(const struct fl_onnx *model, uint8_t **ret, size_t *ret_size, struct fl_err *e);

#endif
