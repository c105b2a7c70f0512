/* SPDX-License-Identifier: Apache-2.0 */
/* For cppcheck, which sees no system header: the macros of libraries that look like statements. */
#define json_object_foreach(object, key, value) \
    for ((key) = json_key(object), (value) = json_value(object); (key); (key) = json_key(object))
#define json_array_foreach(array, index, value) \
    for ((index) = 0, (value) = json_value(array); (index) < json_array_size(array); (index)++)
