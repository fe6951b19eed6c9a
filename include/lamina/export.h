// Visibility of the library's symbols: hidden unless marked LAMINA_API.
#ifndef LAMINA_EXPORT_H_
#define LAMINA_EXPORT_H_

#define LAMINA_API __attribute__((visibility("default")))

#endif  // LAMINA_EXPORT_H_
